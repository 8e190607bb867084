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
