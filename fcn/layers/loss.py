"""The loss of a map of classes."""

from __future__ import annotations

from .arrays import Array, namespace


def softmax_cross_entropy(logits: Array, labels: Array, void: int = 255) -> tuple[float, Array]:
    """Return the mean of ``-log(softmax(logits)[label])`` over labelled pixels, and its gradient.

    Parameters
    ----------
    logits : ndarray
        ``(n, h, w, classes)``, float32.
    labels : ndarray
        ``(n, h, w)``, integers below `classes`, or `void` where a pixel counts for nothing.
    void : int
        The label of pixels that count for nothing.

    Returns
    -------
    loss : float
        Summed in float64; 0.0 where no pixel is labelled.
    g : ndarray
        The gradient in the logits, of their shape and dtype; zeros at void pixels.

    Raises
    ------
    ValueError
        For labels of another shape or dtype, and for a label that is no class.

    Notes
    -----
    The multinomial logistic loss a pixel of Long, Shelhamer & Darrell (arXiv:1411.4038, section
    4), its mean in place of their sum.

    Examples
    --------
    >>> import numpy as np
    >>> loss, g = softmax_cross_entropy(np.zeros((1, 1, 2, 2), np.float32), np.array([[[1, 255]]]))
    >>> round(loss, 6), g[0, 0, 0]
    (0.693147, array([ 0.5, -0.5], dtype=float32))
    """
    xp, classes = namespace(logits), logits.shape[-1]
    if labels.shape != logits.shape[:-1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels: expected integers of shape {logits.shape[:-1]}, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    labels = labels.reshape(-1)
    labelled = labels != void
    wrong = labelled & ((labels < 0) | (labels >= classes))
    if wrong.any():
        raise ValueError(
            f"labels: expected 0 to {classes - 1} or {void} (void), got {int(labels[wrong][0])}"
        )
    count = int(xp.count_nonzero(labelled))
    g = logits.reshape(-1, classes) - logits.reshape(-1, classes).max(axis=-1, keepdims=True)
    rows = xp.arange(len(labels))
    index = xp.where(labelled, labels, 0).astype(xp.intp)
    chosen = g[rows, index]
    xp.exp(g, out=g)
    total = g.sum(axis=-1)
    losses = xp.where(labelled, xp.log(total) - chosen, 0)
    loss = float(losses.sum(dtype=xp.float64)) / max(count, 1)
    g /= total[:, None]
    g[rows, index] -= 1
    g *= (labelled / xp.asarray(max(count, 1))).astype(g.dtype)[:, None]
    return loss, g.reshape(logits.shape)
