"""Losses and distances as loops over pairs, in float64: what simstore.similarity's are compared with."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def distance(name: str, a: Vector, b: Vector) -> float:
    """From a to b, smaller is closer."""
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    if name == "cosine":
        lengths = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
        return 1 - dot / lengths if lengths else 1.0
    if name == "inner_product":
        return 1 - dot
    if name == "manhattan":
        return sum(abs(x - y) for x, y in zip(a, b, strict=True))
    if name == "snr":
        noise = [y - x for x, y in zip(a, b, strict=True)]
        return float(np.var(noise) / np.var(a)) if np.var(a) else 0.0
    squared = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    return squared if name == "squared_euclidean" else math.sqrt(squared)


def cosine(a: Vector, b: Vector) -> float:
    return 1 - distance("cosine", a, b)


class Batch:
    """Anchors and keys; the anchors are the first keys."""

    def __init__(self, labels: Any, embeddings: Matrix, name: str, more: tuple[Any, Any] = ((), ())) -> None:
        self.labels = [*labels, *more[0]]
        self.keys = [*embeddings, *more[1]]
        self.n = len(labels)
        self.name = name

    def d(self, i: int, j: int) -> float:
        return distance(self.name, self.keys[i], self.keys[j])

    def positives(self, i: int) -> list[int]:
        return [j for j in range(len(self.keys)) if j != i and self.labels[j] == self.labels[i]]

    def negatives(self, i: int) -> list[int]:
        return [j for j in range(len(self.keys)) if self.labels[j] != self.labels[i]]

    def each(self, loss: Callable[[int], float], *, needs_negative: bool = True) -> Vector:
        """The loss of each anchor that has a positive and a negative; 0 of the others."""
        has = [bool(self.positives(i)) and (bool(self.negatives(i)) or not needs_negative) for i in range(self.n)]
        return np.array([loss(i) if has[i] else 0.0 for i in range(self.n)])

    def mined(self, i: int, positive: str, negative: str) -> tuple[int, int]:
        p = (max if positive == "hard" else min)(self.positives(i), key=lambda j: self.d(i, j))
        if negative == "hard":
            return p, min(self.negatives(i), key=lambda j: self.d(i, j))
        farther = [j for j in self.negatives(i) if self.d(i, j) > self.d(i, p)]
        if negative == "semi-hard" and farther:
            return p, min(farther, key=lambda j: self.d(i, j))
        return p, max(self.negatives(i), key=lambda j: self.d(i, j))


def hinge(difference: float, margin: float | None) -> float:
    return math.log(1 + math.exp(difference)) if margin is None else max(difference + margin, 0.0)


def triplet(b: Batch, positive: str, negative: str, margin: float | None) -> Vector:
    def loss(i: int) -> float:
        p, n = b.mined(i, positive, negative)
        return hinge(b.d(i, p) - b.d(i, n), margin)

    return b.each(loss)


def pn(b: Batch, positive: str, negative: str, margin: float | None) -> Vector:
    def loss(i: int) -> float:
        p, n = b.mined(i, positive, negative)
        return hinge(b.d(i, p) - min(b.d(i, n), b.d(p, n)), margin)

    return b.each(loss)


def multi_similarity(b: Batch, alpha: float, beta: float, epsilon: float, lmda: float, center: float) -> Vector:
    def loss(i: int) -> float:
        positives, negatives = b.positives(i), b.negatives(i)
        closest, farthest = min(b.d(i, n) for n in negatives), max(b.d(i, p) for p in positives)
        far = [b.d(i, p) for p in positives if b.d(i, p) > closest - epsilon]
        close = [b.d(i, n) for n in negatives if b.d(i, n) < farthest + epsilon]
        if not far or not close:
            return 0.0
        pull = math.log(1 + sum(math.exp(alpha * (d + lmda - center)) for d in far)) / alpha
        return pull + math.log(1 + sum(math.exp(-beta * (d + lmda - center)) for d in close)) / beta

    return b.each(loss)


def circle(b: Batch, gamma: float, margin: float, weighing: Batch | None = None) -> Vector:
    """With the weights of another batch, if there is one: no gradient goes through them."""
    w = weighing or b

    def loss(i: int) -> float:  # the paper's s_p and s_n are 1 − d
        pull = [-gamma * max(1 + margin - (1 - w.d(i, p)), 0) * (1 - b.d(i, p) - (1 - margin)) for p in b.positives(i)]
        push = [gamma * max(1 - w.d(i, n) + margin, 0) * (1 - b.d(i, n) - margin) for n in b.negatives(i)]
        return math.log(1 + sum(map(math.exp, pull)) * sum(map(math.exp, push)))

    return b.each(loss)


def soft_nn(b: Batch, temperature: float) -> Vector:
    def loss(i: int) -> float:
        own = sum(math.exp(-b.d(i, p) / temperature) for p in b.positives(i))
        return -math.log(own / (own + sum(math.exp(-b.d(i, n) / temperature) for n in b.negatives(i))))

    return b.each(loss, needs_negative=False)


def sup_con(b: Batch, temperature: float) -> Vector:
    def loss(i: int) -> float:
        positives = b.positives(i)
        everyone = sum(math.exp(-b.d(i, k) / temperature) for k in positives + b.negatives(i))
        return -sum(math.log(math.exp(-b.d(i, p) / temperature) / everyone) for p in positives) / len(positives)

    return b.each(loss, needs_negative=False)


def lifted(b: Batch, positive: str, margin: float) -> Vector:
    def loss(i: int) -> float:
        p, _ = b.mined(i, positive, "hard")
        push = sum(math.exp(margin - b.d(i, n)) + math.exp(margin - b.d(p, n)) for n in b.negatives(i))
        return max(math.log(push) + b.d(i, p), 0.0) ** 2 / 2

    return b.each(loss)


def multi_negatives(queries: Matrix, keys: Matrix, name: str, scale: float) -> Vector:
    def loss(i: int) -> float:
        weights = [math.exp(-scale * distance(name, queries[i], key)) for key in keys]
        return -math.log(weights[i] / sum(weights))

    return np.array([loss(i) for i in range(len(queries))])


def sim_clr(za: Matrix, zb: Matrix, temperature: float, normed: bool) -> Vector:
    similarity = cosine if normed else lambda a, b: float(a @ b)

    def loss(i: int) -> float:
        own = math.exp(similarity(za[i], zb[i]) / temperature)
        to_b = sum(math.exp(similarity(za[i], b) / temperature) for b in zb)
        to_a = sum(math.exp(similarity(za[i], za[j]) / temperature) for j in range(len(za)) if j != i)
        return -math.log(own / (to_b + to_a))

    return np.array([loss(i) for i in range(len(za))])


def sim_siam(z: Matrix, p: Matrix, kind: str, margin: float) -> Vector:
    of_cosine = {
        "negative_cosine_sim": lambda c: -c,
        "cosine_distance": lambda c: 1 - c,
        "angular_distance": lambda c: math.acos(c) / math.pi,
    }[kind]
    return np.array([of_cosine(cosine(a, b)) / 2 + margin for a, b in zip(z, p, strict=True)])


def barlow(za: Matrix, zb: Matrix, lambda_: float, margin: float) -> Vector:
    loss = margin
    for i in range(za.shape[1]):
        for j in range(za.shape[1]):
            correlation = float(np.corrcoef(za[:, i], zb[:, j])[0, 1])
            loss += (1 - correlation) ** 2 if i == j else lambda_ * correlation**2
    return np.full(len(za), loss)


def vic_reg(za: Matrix, zb: Matrix, std_const: float, lambda_: float, mu: float, nu: float) -> Vector:
    dim, shared = za.shape[1], 0.0
    for z in (za, zb):
        covariance = np.cov(z, rowvar=False)
        for i in range(dim):
            shared += mu * max(0.0, 1 - math.sqrt(covariance[i, i] + std_const)) / dim / 2
            shared += nu * sum(covariance[i, j] ** 2 for j in range(dim) if j != i) / dim
    return np.array([lambda_ * sum((a - b) ** 2) / dim + shared for a, b in zip(za, zb, strict=True)])


def arc_face(labels: Any, embeddings: Matrix, vectors: Matrix, margin: float, scale: float) -> Vector:
    def loss(i: int) -> float:
        cosines = [cosine(embeddings[i], vector) for vector in vectors]
        theta = math.acos(cosines[labels[i]])
        own = math.cos(theta + margin) if theta + margin < math.pi else math.cos(theta) - margin * math.sin(margin)
        others = sum(math.exp(scale * c) for k, c in enumerate(cosines) if k != labels[i])
        return -math.log(math.exp(scale * own) / (math.exp(scale * own) + others))

    return np.array([loss(i) for i in range(len(labels))])


def proxy_anchor(labels: Any, embeddings: Matrix, proxies: Matrix, margin: float, alpha: float) -> Vector:
    pull = push = 0.0
    for k, proxy in enumerate(proxies):
        cosines = [cosine(x, proxy) for x in embeddings]
        pull += math.log(1 + sum(math.exp(-alpha * (s - margin)) for s, y in zip(cosines, labels, strict=True) if y == k))
        push += math.log(1 + sum(math.exp(alpha * (s + margin)) for s, y in zip(cosines, labels, strict=True) if y != k))
    return np.full(len(labels), pull / len(set(labels)) + push / len(proxies))
