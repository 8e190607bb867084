"""The linear head is scikit-learn's logistic regression on the same features, on any number of processes."""

import pytest
import timm
import torch
from accelerate import Accelerator
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from dccd_timm.batch import Batch
from dccd_timm.engine import probe
from dccd_timm.engine.probe import extract_features, knn_top1, train_probe


@pytest.fixture
def points():
    """Features [200, 6] of five classes that overlap, in channels of very different scales; one is constant."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 5, (200,), generator=generator)
    centres = torch.randn(5, 6, generator=generator)
    features = centres[target] + 1.5 * torch.randn(200, 6, generator=generator)
    features = features * torch.tensor([0.1, 1, 3, 10, 30, 0]) + 5
    return features, target


def test_it_is_scikit_learns_logistic_regression(points, fresh_accelerator, monkeypatch):
    features, target = points
    monkeypatch.setattr(probe, "_ROWS", 64)  # several parts
    weight, bias = train_probe(features, target, 5, 100, Accelerator(cpu=True))
    scaler = StandardScaler().fit(features.numpy())
    known = LogisticRegression(C=1, max_iter=2000, tol=1e-8).fit(scaler.transform(features.numpy()), target.numpy())
    found = (features @ weight.T + bias).softmax(1)
    wanted = torch.tensor(known.predict_proba(scaler.transform(features.numpy())), dtype=torch.float32)
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=0)


def test_more_epochs_fit_better_and_a_class_without_images_stays_possible(points, fresh_accelerator):
    features, target = points
    accelerator = Accelerator(cpu=True)
    losses = []
    for epochs in (1, 5, 50):
        weight, bias = train_probe(features, target, 6, epochs, accelerator)
        losses.append(torch.nn.functional.cross_entropy(features @ weight.T + bias, target).item())
    assert losses[0] > losses[1] > losses[2] and weight.shape == (6, 6)


def test_features_are_those_before_the_head_and_what_cannot_be_read_is_named(fresh_accelerator):
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=3).eval()
    images = torch.randn(3, 1, 3, 32, 32)
    batches = [
        Batch(images[:2], torch.tensor([0, 2])),
        Batch.empty([("a.png (broken)", 1)]),
        Batch(images[2:], torch.tensor([1])),
    ]
    features, target, skipped = extract_features(network, batches, Accelerator(cpu=True))
    wanted = network.forward_head(network.forward_features(images[:, 0]), pre_logits=True)
    torch.testing.assert_close(features, wanted)
    assert target.tolist() == [0, 2, 1] and skipped == {"a.png (broken)": 1} and not features.requires_grad
    empty, classes, _ = extract_features(network, [], Accelerator(cpu=True))
    assert len(empty) == len(classes) == 0


def test_neighbours_vote_as_scikit_learns_do(points):
    features, target = points
    bank, queries, classes, wanted = features[:150], features[150:], target[:150], target[150:]
    known = KNeighborsClassifier(20, metric="cosine", algorithm="brute").fit(bank.numpy(), classes.numpy())
    share = 100 * (torch.tensor(known.predict(queries.numpy())) == wanted).double().mean().item()
    assert 20 < share < 100
    assert knn_top1(bank, classes, queries, wanted) == pytest.approx(share)
    assert knn_top1(bank[:5], classes[:5], bank[:5], classes[:5], k=1) == 100  # fewer than k of them
