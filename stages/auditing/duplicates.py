"""Exact and near duplicates, within splits and across them, and duplicates with conflicting labels.

Near duplicates are neighbors in a space of whitened thumbnails: 16 × 16 pixels without mean and contrast, projected on
the principal components of the dataset, each scaled to variance 1. In plain pixels, two skies over two seas are as
similar as two copies of a photograph; whitening removes what the images of a dataset have in common. What remains of it
shows in the density: a copy is much closer than the tenth neighbor, two images of ones in MNIST are not.
"""

from typing import TYPE_CHECKING

import numpy as np

from stages.auditing.images import Images
from stages.runtime.progress import progress

if TYPE_CHECKING:
    import pandas as pd

COMPONENTS = 64
SAMPLED = 20_000  # thumbnails that the principal components are computed from
NEIGHBORS = 10
SAME = 0.99  # from this similarity on, images are near duplicates however dense their neighborhood
FLAT = 1.0  # standard deviation of a thumbnail, of 255: what has less is noise
BLOCK = 2**26  # similarities in memory at a time, 256 MB
PART = 2**16  # thumbnails as floating-point numbers at a time, 200 to 400 MB


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
    exact = _exact(images, group)
    pairs = _similar(images.thumbnails, first, similarity, ratio)
    near = _near(images, group, pairs)
    found = pd.concat([exact, near], ignore_index=True)
    conflicts = images.labels[found["image"]] != images.labels[found["partner"]]
    return pd.concat([found, found[conflicts].assign(kind="conflicting_labels")], ignore_index=True)


def _exact(images: Images, group: np.ndarray) -> "pd.DataFrame":
    """Images with the pixels of another one; `group` numbers the different contents."""
    import pandas as pd

    table = pd.DataFrame({"image": np.arange(len(group)), "group": group, "split": images.split})
    firsts = table.drop_duplicates(["group", "split"])  # the first image of each content in each split
    pairs = table.merge(firsts, on="group", suffixes=("", "_partner"))
    later = (pairs["split_partner"] < pairs["split"]) | (
        (pairs["split_partner"] == pairs["split"]) & (pairs["image_partner"] < pairs["image"])
    )
    chosen = pairs[later].sort_values(["image", "image_partner"])
    return pd.DataFrame(
        {"image": chosen["image"], "kind": "exact_duplicate", "score": 1.0, "partner": chosen["image_partner"]}
    )


def _near(images: Images, group: np.ndarray, pairs: "pd.DataFrame") -> "pd.DataFrame":
    """The most similar partner of each image in each split: `pairs` of contents a, b, score → rows."""
    import pandas as pd

    both = pd.concat([pairs, pairs.rename(columns={"a": "b", "b": "a"})]).drop_duplicates(["a", "b"])
    table = pd.DataFrame({"image": np.arange(len(group)), "group": group, "split": images.split})
    firsts = table.drop_duplicates(["group", "split"])
    rows = table.merge(both, left_on="group", right_on="a").merge(
        firsts, left_on="b", right_on="group", suffixes=("", "_partner")
    )
    rows = rows.sort_values(["score", "image_partner"], ascending=[False, True])
    rows = rows.drop_duplicates(["image", "split_partner"])
    rows = rows[rows["split_partner"] <= rows["split"]]
    within = rows["split_partner"] == rows["split"]
    ends = np.sort(rows[["image", "image_partner"]].to_numpy(), axis=1)
    rows["image"] = np.where(within, ends[:, 1], rows["image"])
    rows["image_partner"] = np.where(within, ends[:, 0], rows["image_partner"])
    rows = rows.drop_duplicates(["image", "image_partner"]).sort_values(["image", "image_partner"])
    return pd.DataFrame(
        {"image": rows["image"], "kind": "near_duplicate", "score": rows["score"], "partner": rows["image_partner"]}
    )


def _similar(thumbnails: np.ndarray, chosen: np.ndarray, similarity: float, ratio: float) -> "pd.DataFrame":
    """Pairs a < b of similar images among the `chosen` ones, as positions in `chosen`, with their similarity.

    Compares every image with every other one, plain and mirrored: O(n²) in time, O(n) in memory.
    """
    import pandas as pd
    import tensorflow as tf

    parts = (thumbnails[chosen[at : at + PART]] for at in range(0, len(chosen), PART))
    flat = np.concatenate([part.reshape(len(part), -1).std(axis=1) < FLAT for part in parts])
    kept = np.flatnonzero(~flat)
    if len(kept) < 2:
        return pd.DataFrame({"a": [], "b": [], "score": []}).astype({"a": int, "b": int, "score": float})
    vectors, mirrored = _vectors(thumbnails[chosen[kept]])
    count = min(NEIGHBORS, len(kept) - 1)
    neighbors = np.empty((len(kept), count), np.int64)
    scores = np.empty((len(kept), count), np.float32)
    size = max(1, BLOCK // len(kept))
    starts = range(0, len(kept), size)
    everything = tf.constant(vectors)
    for start in progress(starts, len(starts), "near duplicates", "blocks"):
        rows = slice(start, start + size)
        block = tf.maximum(
            tf.matmul(vectors[rows], everything, transpose_b=True),
            tf.matmul(mirrored[rows], everything, transpose_b=True),
        )
        own = np.arange(start, start + block.shape[0])
        block = tf.tensor_scatter_nd_update(
            block, np.stack([own - start, own], axis=1), np.full(len(own), -1, np.float32)
        )
        found = tf.math.top_k(block, count)
        scores[rows], neighbors[rows] = found.values.numpy(), found.indices.numpy()
    distance = 1 - scores
    close = (scores >= similarity) & ((distance <= ratio * distance[:, -1:]) | (scores >= SAME))
    a, column = np.nonzero(close)
    b = neighbors[a, column]
    return pd.DataFrame(
        {"a": kept[np.minimum(a, b)], "b": kept[np.maximum(a, b)], "score": scores[a, column].astype(float).round(4)}
    ).drop_duplicates(["a", "b"])


def _vectors(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whitened thumbnails as unit vectors, (n, at most 64) float32, as they are and mirrored."""
    from sklearn.decomposition import PCA

    sample = _normalized(thumbnails[:: -(-len(thumbnails) // SAMPLED)])
    components = PCA(min(COMPONENTS, len(sample) - 1, sample.shape[1]), whiten=True, svd_solver="covariance_eigh").fit(
        sample
    )
    used = components.explained_variance_ > 1e-6 * components.explained_variance_[0]

    def project(images: np.ndarray) -> np.ndarray:
        parts = (_normalized(images[at : at + PART]) for at in range(0, len(images), PART))
        vectors = np.concatenate([components.transform(part)[:, used] for part in parts])
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    return project(thumbnails), project(thumbnails[:, :, ::-1])


def _normalized(thumbnails: np.ndarray) -> np.ndarray:
    """Without their mean and contrast: (n, values) float32 of length 1."""
    rows = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
