"""Exact and near duplicates, within splits and across them, and duplicates with conflicting labels.

Near duplicates are neighbors in a space of whitened thumbnails: 16 × 16 pixels without mean and contrast, projected on
the principal components of the dataset, each scaled to variance 1. In plain pixels, two skies over two seas are as
similar as two copies of a photograph; whitening removes what the images of a dataset have in common. What remains of it
shows in the density: a copy is much closer than the tenth neighbor, two images of ones in MNIST are not.
"""

from typing import TYPE_CHECKING

import numpy as np

from stages.auditing.images import Images

if TYPE_CHECKING:
    import pandas as pd

COMPONENTS = 64
SAMPLED = 20_000  # thumbnails that the principal components are computed from
NEIGHBORS = 10
SAME = 0.99  # from this similarity on, images are near duplicates however dense their neighborhood
FLAT = 1.0  # standard deviation of a thumbnail, of 255: what has less is noise


def find(images: Images, similarity: float, ratio: float) -> "pd.DataFrame":
    """Duplicates as rows image, kind, score, partner.

    A row names an image and its partner: within a split an earlier image, across splits one of an earlier split. The
    score is the similarity, 1 for exact duplicates. Rows of kind conflicting_labels repeat the duplicates whose labels
    differ.

    Args:
        images: of a dataset.
        similarity: from -1 to 1, from which on images can be near duplicates.
        ratio: of a near duplicate's distance to that of the tenth neighbor, at most.
    """
    import pandas as pd

    _, first, group = np.unique(images.digests, return_index=True, return_inverse=True)
    contents = np.arange(len(first))
    same = pd.DataFrame({"a": contents, "b": contents, "score": 1.0})
    pairs = _similar(images.thumbnails, first, similarity, ratio)
    kinds = {"exact_duplicate": same, "near_duplicate": pairs}
    found = pd.concat(
        [_partners(images, group, each).assign(kind=kind) for kind, each in kinds.items()], ignore_index=True
    )
    conflicts = images.labels[found["image"]] != images.labels[found["partner"]]
    return pd.concat([found, found[conflicts].assign(kind="conflicting_labels")], ignore_index=True)


def _partners(images: Images, group: np.ndarray, pairs: "pd.DataFrame") -> "pd.DataFrame":
    """The most similar partner of each image in each split, as rows image, score, partner.

    Args:
        images: of a dataset.
        group: (n,) int: the number of each image's content.
        pairs: similar contents a, b and their score.
    """
    import pandas as pd

    both = pd.concat([pairs, pairs.rename(columns={"a": "b", "b": "a"})]).drop_duplicates(["a", "b"])
    table = pd.DataFrame({"image": np.arange(len(group)), "group": group, "split": images.split})
    firsts = table.drop_duplicates(["group", "split"])  # the first image of each content in each split
    rows = table.merge(both, left_on="group", right_on="a").merge(
        firsts, left_on="b", right_on="group", suffixes=("", "_partner")
    )
    rows = rows.sort_values(["score", "image_partner"], ascending=[False, True])
    rows = rows.drop_duplicates(["image", "split_partner"])
    rows = rows[(rows["split_partner"] <= rows["split"]) & (rows["image_partner"] != rows["image"])]
    within = rows["split_partner"] == rows["split"]
    ends = np.sort(rows[["image", "image_partner"]].to_numpy(), axis=1)
    rows["partner"] = np.where(within, ends[:, 0], rows["image_partner"])
    rows["image"] = np.where(within, ends[:, 1], rows["image"])
    rows = rows.drop_duplicates(["image", "partner"]).sort_values(["image", "partner"])
    return rows[["image", "score", "partner"]]


def _similar(thumbnails: np.ndarray, chosen: np.ndarray, similarity: float, ratio: float) -> "pd.DataFrame":
    """Pairs of similar images among the `chosen` ones, as positions a, b in `chosen`, with their similarity.

    Compares every image with every other one, plain and mirrored: O(n²) in time, O(n) in memory.
    """
    import pandas as pd
    from sklearn.neighbors import NearestNeighbors

    kept = np.flatnonzero(thumbnails[chosen].std(axis=(1, 2, 3), dtype=np.float32) >= FLAT)
    if len(kept) < 2:
        return pd.DataFrame({"a": [], "b": [], "score": []}).astype({"a": int, "b": int, "score": float})
    vectors, mirrored = _vectors(thumbnails[chosen[kept]])
    count = min(NEIGHBORS, len(kept) - 1)
    search = NearestNeighbors(n_neighbors=count + 1, algorithm="brute").fit(vectors)
    distances, neighbors = search.kneighbors(np.concatenate([vectors, mirrored]))
    a = np.repeat(np.tile(np.arange(len(kept)), 2), count + 1)
    pairs = pd.DataFrame({"a": a, "b": neighbors.ravel(), "distance": distances.ravel() ** 2 / 2})  # 1 - cosine
    pairs = pairs[pairs["a"] != pairs["b"]].sort_values("distance", kind="stable")
    pairs = pairs.drop_duplicates(["a", "b"]).groupby("a").head(count)
    farthest = pairs.groupby("a")["distance"].transform("max")
    dense = (pairs["distance"] <= ratio * farthest) | (pairs["distance"] <= 1 - SAME)
    close = pairs[dense & (pairs["distance"] <= 1 - similarity)]
    return pd.DataFrame({"a": kept[close["a"]], "b": kept[close["b"]], "score": (1 - close["distance"]).round(4)})


def _vectors(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whitened thumbnails as unit vectors, (n, at most 64) float32, as they are and mirrored."""
    from sklearn.decomposition import PCA

    sample = _normalized(thumbnails[:: -(-len(thumbnails) // SAMPLED)])
    components = PCA(min(COMPONENTS, len(sample) - 1, sample.shape[1]), whiten=True, svd_solver="covariance_eigh").fit(
        sample
    )
    used = components.explained_variance_ > 1e-6 * components.explained_variance_[0]

    def project(images: np.ndarray) -> np.ndarray:
        vectors = components.transform(_normalized(images))[:, used]
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    return project(thumbnails), project(thumbnails[:, :, ::-1])


def _normalized(thumbnails: np.ndarray) -> np.ndarray:
    """Without their mean and contrast: (n, values) float32 of length 1."""
    rows = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
