"""Features of samples, their place on a plane, and their groups: what similarity figures show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from distforget.finding.embedders import BUILTIN, EmbedderConfig, open_embedder
from distforget.finding.image_features import has_resnet, open_features
from distforget.report.pictures import pixels_of
from distforget.report.study_tables import NothingToShowError, StudyTables

FAMILIES = 10
"""Targets that are shown with their similar samples."""
OTHERS = 1_500
"""At most so many other samples are shown, drawn at random."""
COMPONENTS = 50
SEED = 0

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Points:
    """Samples on a plane (t-SNE of their features), in groups."""

    rows: pd.DataFrame
    """Rows of table `samples`."""
    place_N2: Floats
    reduced_NP: Floats
    """Principal components of the features."""
    group_N: npt.NDArray[np.int64]
    """Number of the group; -1: none."""
    features: str
    """What the features are, for captions."""

    @property
    def purity(self) -> float:
        """Share of a target and its similar samples that lie in one group, mean over targets.

        NaN if no target has a similar sample.
        """
        family = self.rows["target_index"]
        shares = []
        for target in family.dropna().unique():
            mine = self.group_N[(family == target).to_numpy()]
            if len(mine) > 1:
                grouped = mine[mine >= 0]
                largest = np.bincount(grouped).max() if len(grouped) else 0
                shares.append(largest / len(mine))
        return float(np.mean(shares)) if shares else float("nan")


def chosen(samples: pa.Table, families: int = FAMILIES) -> pd.DataFrame:
    """The first targets with their similar samples, and other samples.

    Raises:
        NothingToShowError: there are fewer than three.
    """
    rows: pd.DataFrame = samples.to_pandas()
    mine = rows["role"].isin(["target", "similar"]) & (rows["target_index"] <= families)
    others = rows[rows["role"] == "other"]
    others = others.sample(min(OTHERS, len(others)), random_state=SEED)
    found = pd.concat([rows[mine], others], ignore_index=True)
    if len(found) < 3:
        raise NothingToShowError("the study has too few samples for groups")
    return found


def image_points(tables: StudyTables) -> Points:
    """The points of a study of images, computed once.

    Raises:
        NothingToShowError: it is a study of text, or has too few samples.
    """
    samples = tables.of_images.samples
    return _once(tables, "images", lambda: of_images(samples))


def text_points(tables: StudyTables, families: int = FAMILIES) -> Points:
    """The points of a study of text, computed once.

    Raises:
        NothingToShowError: it is a study of images, or has too few samples.
    """
    samples = tables.of_text
    return _once(tables, f"texts {families}", lambda: of_texts(samples, families))


def _once(tables: StudyTables, name: str, make: Callable[[], Points]) -> Points:
    if name not in tables.kept:
        tables.kept[name] = make()
    found: Points = tables.kept[name]
    return found


def of_images(samples: pa.Table) -> Points:
    """Images by the paper's way: features, PCA, t-SNE, and k-means with a group for each class.

    The features are ResNet-50's if torchvision's weights lie in torch's cache, else pixels.
    """
    from sklearn.cluster import KMeans

    rows = chosen(samples)
    features, said = _image_features(rows)
    reduced = reduce(features)
    classes = rows["answer"].nunique()
    groups = KMeans(classes, n_init=10, random_state=SEED).fit_predict(reduced)
    return Points(rows, plane(reduced), reduced, groups.astype(np.int64), said)


def of_texts(samples: pa.Table, families: int = FAMILIES) -> Points:
    """Texts: embeddings, PCA, t-SNE for the eye, and HDBSCAN on ten principal components."""
    from sklearn.cluster import HDBSCAN

    rows = chosen(samples, families)
    whole = [f"{q}\n{a}" for q, a in zip(rows["question"], rows["answer"], strict=True)]
    features, said = _text_features(whole)
    reduced = reduce(features)
    smallest = int(np.clip(len(rows) // 100, 3, 30))
    found = HDBSCAN(min_cluster_size=smallest, copy=True).fit_predict(reduced[:, :10])
    return Points(rows, plane(reduced), reduced, found.astype(np.int64), said)


def reduce(features_ND: Floats) -> Floats:
    """The first principal components [N, P], at most `COMPONENTS`."""
    from sklearn.decomposition import PCA

    count = min(COMPONENTS, *features_ND.shape)
    found: Floats = PCA(count, random_state=SEED).fit_transform(features_ND)
    return found


def plane(reduced_NP: Floats) -> Floats:
    """Places on a plane [N, 2] by t-SNE."""
    from sklearn.manifold import TSNE

    perplexity = float(np.clip((len(reduced_NP) - 1) / 3, 1, 30))
    found: Floats = TSNE(perplexity=perplexity, random_state=SEED).fit_transform(reduced_NP)
    return found


def topics(points: Points, words: int = 3) -> dict[int, str]:
    """The words that set each group of texts apart from the others, by group."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    numbers = [int(n) for n in np.unique(points.group_N) if n >= 0]
    if not numbers:
        return {}
    said = points.rows["question"] + " " + points.rows["answer"]
    whole = [" ".join(said[points.group_N == number]) for number in numbers]
    counter = TfidfVectorizer(stop_words="english", sublinear_tf=True)
    try:
        weights = counter.fit_transform(whole).toarray()
    except ValueError:  # nothing but stop words
        return {number: f"topic {number + 1}" for number in numbers}
    names = counter.get_feature_names_out()
    return {
        number: ", ".join(names[np.argsort(-row)[:words]])
        for number, row in zip(numbers, weights, strict=True)
    }


def _text_features(texts: Sequence[str]) -> tuple[Floats, str]:
    package = BUILTIN["builtin:minilm"]
    if find_spec(package.replace("-", "_")):
        vectors = open_embedder(EmbedderConfig(), "cpu")(texts)
        return vectors.astype(np.float64), "embeddings of all-MiniLM-L6-v2"
    from sklearn.feature_extraction.text import TfidfVectorizer

    found: Floats = TfidfVectorizer(sublinear_tf=True).fit_transform(texts).toarray()
    return found, f"TF-IDF of words (package {package} is not installed)"


def _image_features(rows: pd.DataFrame) -> tuple[Floats, str]:
    pictures = [pixels_of(row) for row in rows.to_dict("records")]
    if has_resnet():
        features = open_features(EmbedderConfig(path="resnet50"), "cpu")(np.stack(pictures))
        return features.astype(np.float64), "features of ResNet-50"
    flat = np.stack([picture.ravel() for picture in pictures]).astype(np.float64) / 255
    return flat, "pixels (ResNet-50's weights are not in torch's cache)"


def families(rows: pd.DataFrame) -> Mapping[int, npt.NDArray[Any]]:
    """Row numbers of each target and its similar samples."""
    index = rows["target_index"]
    return {int(t): np.flatnonzero(index == t) for t in sorted(index.dropna().unique())}
