"""design.md's formulas in float64 NumPy, written without looking at the library's code."""

import numpy as np
import torch


def softmax(z, axis=-1):
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def kd(student, teacher, temperature):
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * (p * (np.log(p) - np.log(q))).sum() / len(student)


def difference(student, teacher, views, pair, temperature, form):
    def split(z):
        z = z.reshape(views, -1, z.shape[-1])
        return z[pair[0]] - z[pair[1]]

    ds, dt = split(student), split(teacher)
    if form == "mse":
        ds, dt = (d - d.mean(axis=1, keepdims=True) for d in (ds, dt))
        return ((ds - dt) ** 2).mean()
    return (kd(ds, dt, temperature) + kd(-ds, -dt, temperature)) / 2


def pool(x, grid):
    """Adaptive average pooling of [N, C, H, W], cell i from floor(i H / h) to ceil((i + 1) H / h)."""
    n, c, height, width = x.shape
    out = np.empty((n, c, *grid))
    for i in range(grid[0]):
        rows = slice(i * height // grid[0], -(-(i + 1) * height // grid[0]))
        for j in range(grid[1]):
            columns = slice(j * width // grid[1], -(-(j + 1) * width // grid[1]))
            out[:, :, i, j] = x[:, :, rows, columns].mean(axis=(2, 3))
    return out


def channels(x):
    """Unit vectors of all activations of each channel: [C, M]."""
    x = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)
    x = x - x.mean(axis=1, keepdims=True)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def contrast(student, teacher, temperature, targets="soft", direction="symmetric", negatives="teacher"):
    if student.ndim == 4:
        grid = tuple(min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True))
        student, teacher = pool(student, grid), pool(teacher, grid)
    s, t = channels(student), channels(teacher)
    r = s @ t.T
    if negatives == "student":
        r = s @ s.T - np.eye(len(s)) + np.diag(np.diag(r))
    wanted = np.eye(len(r)) if targets == "hard" else softmax(t @ t.T / temperature, axis=1)

    def cross_entropy(logits):
        return -(wanted * np.log(softmax(logits, axis=1))).sum(axis=1).mean()

    rows = cross_entropy(r / temperature)
    return (rows + cross_entropy(r.T / temperature)) / 2 if direction == "symmetric" else rows


def gradient(function, x, step=1e-6):
    """Central differences of a scalar function at x."""
    result = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        for sign in (1, -1):
            moved = x.copy()
            moved[index] += sign * step
            result[index] += sign * function(moved) / (2 * step)
    return result


def check(loss, function, student, teacher):
    """Value and student gradient of ``loss`` equal those of the NumPy ``function``."""
    x = torch.tensor(student, dtype=torch.float32, requires_grad=True)
    value = loss(x, torch.tensor(teacher, dtype=torch.float32))
    value.backward()
    assert value.dtype == torch.float32
    np.testing.assert_allclose(value.item(), function(student), rtol=2e-5, atol=1e-6)
    wanted = gradient(function, student)
    assert np.abs(wanted).max() > 1e-4
    np.testing.assert_allclose(x.grad.numpy(), wanted, rtol=1e-3, atol=2e-4 * np.abs(wanted).max())


def log_softmax(z):
    return (
        z - z.max(axis=1, keepdims=True) - np.log(np.exp(z - z.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True))
    )


def ls(student, teacher, temperature):
    def standard(z):
        return (z - z.mean(axis=1, keepdims=True)) / (z.std(axis=1, ddof=1, keepdims=True) + 1e-7)

    return kd(standard(student), standard(teacher), temperature)


def dkd(student, teacher, labels, alpha, beta, temperature):
    """Sample by sample, class by class: [p_target, 1 - p_target], then the other classes renormalised."""
    total = 0.0
    for i, label in enumerate(labels):
        p, q = softmax(teacher[i] / temperature), softmax(student[i] / temperature)
        total += alpha * (p[label] * np.log(p[label] / q[label]))
        total += alpha * ((1 - p[label]) * np.log((1 - p[label]) / (1 - q[label])))
        for k in range(len(p)):
            if k != label:
                a, b = p[k] / (1 - p[label]), q[k] / (1 - q[label])
                total += (beta[i] if np.ndim(beta) else beta) * a * np.log(a / b)
    return temperature**2 * total / len(labels)


def dist(student, teacher, beta, gamma, temperature):
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    rows = np.mean([np.corrcoef(p[i], q[i])[0, 1] for i in range(len(p))])
    columns = np.mean([np.corrcoef(p[:, k], q[:, k])[0, 1] for k in range(p.shape[1])])
    return temperature**2 * (beta * (1 - rows) + gamma * (1 - columns))


def wttm(student, teacher, gamma):
    powers = softmax(teacher) ** gamma
    u = powers.sum(axis=1)
    q = powers / u[:, None]
    return (u * (q * (np.log(q) - np.log(softmax(student)))).sum(axis=1)).mean()


def ofa(student, teacher, labels, exponent, temperature):
    one = np.eye(student.shape[1])[labels]
    shares = (softmax(teacher / temperature) + one) ** exponent - one
    return -(shares * np.log(softmax(student / temperature))).sum(axis=1).mean()


def fitnet(student, teacher):
    grid = tuple(min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True))
    return ((pool(student, grid) - pool(teacher, grid)) ** 2).mean()


def at(student, teacher):
    grid = tuple(min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True))

    def attention(x):
        a = (pool(x, grid) ** 2).mean(axis=1).reshape(len(x), -1)
        return a / np.linalg.norm(a, axis=1, keepdims=True)

    return ((attention(student) - attention(teacher)) ** 2).mean()


def sp(student, teacher):
    def similarity(x):
        x = x.reshape(len(x), -1)
        g = x @ x.T
        return g / np.linalg.norm(g, axis=1, keepdims=True)

    return ((similarity(student) - similarity(teacher)) ** 2).sum() / len(student) ** 2


def rkd(student, teacher, distance_weight, angle_weight):
    def huber(a, b):
        d = np.abs(np.asarray(a) - np.asarray(b))
        return np.where(d < 1, d * d / 2, d - 0.5).mean()

    def relations(x):
        x = x.mean(axis=(2, 3)) if x.ndim == 4 else x
        n = len(x)
        distances = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
        unit = [[(x[j] - x[i]) / (distances[i, j] or 1) for j in range(n)] for i in range(n)]
        angles = [[[unit[i][j] @ unit[i][k] for k in range(n)] for j in range(n)] for i in range(n)]
        return distances / distances[distances > 0].mean(), angles

    (ds, as_), (dt, at_) = relations(student), relations(teacher)
    return distance_weight * huber(ds, dt) + angle_weight * huber(as_, at_)


def wkd(student, teacher, mean_weight, grid, eps=1e-5):
    total = 0.0
    height, width = student.shape[2:]
    for i in range(grid):
        for j in range(grid):
            rows = slice(i * height // grid, -(-(i + 1) * height // grid))
            columns = slice(j * width // grid, -(-(j + 1) * width // grid))
            s, t = (x[:, :, rows, columns].reshape(*x.shape[:2], -1) for x in (student, teacher))
            means = (s.mean(axis=2) - t.mean(axis=2)) ** 2
            deviations = (np.sqrt(s.var(axis=2, ddof=1) + eps) - np.sqrt(t.var(axis=2, ddof=1) + eps)) ** 2
            total += (mean_weight * means + deviations).sum() / len(student)
    return total / grid**2
