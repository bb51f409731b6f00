"""Calls at the ends of what a rule covers: other ranks, places counted from the end, axes that do not fit, refusals."""

from __future__ import annotations

import torch

from nets.probes import B, I, Open, P, W, Whole, X, call, unrun

aten = torch.ops.aten
S, M = X(2, 3, 4), X(3, 4)

SUMS = [
    call(aten.linear.default, X(2, 4), W(4)),
    unrun((6, 16), aten._grouped_mm.default, X(6, 8), W(2, 8, 16), I(2, below=6)),
    unrun((2, 6, 6), aten._grouped_mm.default, X(6, 8), W(8, 16), I(2, below=6)),
    unrun((2, 3, 5), aten._grouped_mm.default, S, W(2, 4, 5), I(2, below=6)),
    unrun((6, 16), aten._grouped_mm.default, X(6, 8), W(2, 8, 16)),
    unrun((6, 16), aten._grouped_mm.default, X(6, 8), W(2, 8, 16), I(2, below=6), W(16)),
    call(aten.tensordot.default, X(2, 3, 4), W(4, 5, 3), [-2, -1], [-1, -3]),
    call(aten.einsum.default, "...i,ij->...j", [S, W(4, 5)]),
    call(aten.einsum.default, "...i,...j", [S, X(3, 5)]),
    call(aten.einsum.default, "i...,...j->...", [S, X(4, 5)]),
    call(aten.einsum.default, "ij,jk", [X(2, 3), W(3, 4)]),
    call(aten.einsum.default, "ba", [X(2, 3)]),
    call(aten.einsum.default, "bi,bi->bi", [X(2, 1), X(2, 3)]),
    call(aten.einsum.default, "bi,bi->bi", [X(2, 3), X(2, 1)]),
    call(aten.einsum.default, "bi,bi->bi", [X(2, 3), W(2, 3)]),
    call(aten.einsum.default, "bi,bi->bi", [X(2, 3), X(2, 3)]),
    call(aten.einsum.default, "ij,bj->bi", [W(3, 4), X(2, 4)]),
    call(aten.einsum.default, "ij,jk->ik", [W(3, 4), W(4, 2)]),
    call(aten.einsum.default, "bhd,bhd,hm->bm", [X(2, 3, 4), X(2, 3, 4), W(3, 5)]),
    call(aten.einsum.default, "ii->i", [X(3, 3)]),
    call(aten.scaled_dot_product_attention.default, X(3, 4, 5), X(3, 6, 5), X(3, 6, 2), X(4, 6)),
    call(aten.scaled_dot_product_attention.default, X(7, 2, 3, 4, 5), X(7, 2, 3, 6, 5), X(7, 2, 3, 6, 2)),
    call(aten.scaled_dot_product_attention.default, X(6, 4, 2), X(3, 5, 2), X(3, 5, 7), X(6, 4, 5), enable_gqa=True),
    unrun((2, 6, 4, 2), aten.scaled_dot_product_attention.default, X(2, (2, 3), 4, 2), X(2, 2, 4, 2), X(2, 2, 4, 2),
          enable_gqa=True),
    unrun((2, 6, 4, 2), aten.scaled_dot_product_attention.default, X(2, (3, 2), 4, 2), X(2, 2, 4, 2), X(2, 2, 4, 2),
          enable_gqa=True),
    call(aten.sum.dim_IntList, S, []),
    call(aten.sum.dim_IntList, X(), [0]),
]  # fmt: skip

CONVOLUTIONS = [
    call(aten.conv2d.default, X(4, 5, 5), W(6, 2, 2, 2), groups=2),
    call(aten.conv_transpose1d.default, X(4, 5), W(4, 3, 2), W(6), groups=2),
    call(aten.conv1d.default, X(2, (4, 3), 5), W(4, 6, 2), groups=2),
    call(aten.conv_transpose1d.default, X(2, (4, 3), 5), W(12, 1, 2), groups=2),
]

NORMS = [
    call(aten.group_norm.default, X(2, (4, 3), 5), 2),
    call(aten.linalg_norm.default, X(4), 3.0),
    call(aten.linalg_norm.default, M),
    call(aten.linalg_norm.default, M, 1.0),
    call(aten.linalg_norm.default, S, 2.0, [0, 1]),
    call(aten._weight_norm.default, W(3, 4, 2), W(1, 4, 1), 1),
]

POINTWISE = [
    call(aten.prelu.default, S, W(1)),
    call(aten.glu.default, X((3, 4), 2), 0),
]

RECURRENT = [
    call(aten.lstm.input, X(2, 3, 4), [X(1, 2, 3), X(1, 2, 5)], [W(20, 4), W(20, 3), W(3, 5)], False, 1,
         0.0, False, False, True),
    call(aten.gru.input, X(2, 3, 4), X(4, 3, 5), [W(15, 4), W(15, 5), W(15, 4), W(15, 5), W(15, 10), W(15, 5),
         W(15, 10), W(15, 5)], False, 2, 0.0, False, True, False),
    call(aten.lstm.input, X(2, 3, 4), [X(4, 3, 2), X(4, 3, 5)], [W(20, 4), W(20, 2), W(2, 5), W(20, 4), W(20, 2),
         W(2, 5), W(20, 4), W(20, 2), W(2, 5), W(20, 4), W(20, 2), W(2, 5)], False, 2, 0.0, False, True, False),
    unrun((5,), aten.gru_cell.default, X(4), X(5), W(15, 4), W(15, 5)),
    unrun((2, 3, 5), aten.gru.input, X(2, 3, 4), X(1, 3, 5), [W(15, 4), W(15, 5), W(15)], True, 1, 0.0, False, False,
          False),
]  # fmt: skip

ORDERED = [
    call(aten.softmax.int, X(), 0),
    call(aten.softmax.int, X(3, 1), 1),
    call(aten.softmax.int, X(3, 2), 1),
    call(aten.softmax.int, X(3, Whole(4)), 1),
    call(aten.cumsum.default, X(3, Whole(4)), -1),
    call(aten.cumsum.default, S, -2),
    call(aten.cumprod.default, X(), 0),
    call(aten.diff.default, S, 1, -2, X(2, 2, 4)),
    call(aten.diff.default, S, 1, 0, X(2, 3, 4)),
    call(aten.topk.default, X(3, Whole(4)), 2),
    call(aten.topk.default, S, 2, -2),
    call(aten.sort.default, P(3, 4, below=5), 1),
    call(aten.cummax.default, P(3, 4, below=5), 1),
    call(aten.argmax.default, S, -1, True),
    call(aten.argmax.default, X(3, Whole(4)), 1),
    call(aten.argmax.default, W(3, 4)),
    call(aten.median.default, W(3, 4)),
    call(aten.kthvalue.default, W(3, 4), 2),
    call(aten.max.dim, W(3, Whole(4)), 1),
    call(aten.aminmax.default, M),
    call(aten.one_hot.default, P(3, 4, below=5), 5),
    call(aten.one_hot.default, P(3, below=5), 6),
    call(aten.one_hot.default, P(3, below=5), 7),
    call(aten.eq.Scalar, P(3, below=5), 4),
    call(aten.eq.Scalar, P(3, below=5), 5),
    call(aten.eq.Scalar, P(3, below=5), 0),
    call(aten.eq.Scalar, P(3, below=5), -1),
    call(aten.mse_loss.default, M, X(4), 2),
    call(aten.nonzero.default, B(3, 4)),
    call(aten.nonzero_numpy.default, B(3, 4)),
    call(aten.where.default, B(3, 4)),
]

INDEXED = [
    call(aten.index.Tensor, X(3, 4, 5), [None, B(4)]),
    call(aten.index.Tensor, X(3, 4, 5), [B(3, 4)]),
    call(aten.index.Tensor, X(3, 4, 5), [None, B(4, 5)]),
    unrun((2, 5), aten.index.Tensor, X(3, 4, 5), [I(2, below=3), B(4)]),
    call(aten.index.Tensor, X(3, 4, 5), [None, P(2, below=4)]),
    call(aten.index.Tensor, W(3, 4, 5), [I(2, below=3)]),
    call(aten.index.Tensor, W(3, 4), [I(2, below=3)]),
    call(aten.index_put.default, X(3, 4, 5), [None, B(4)], X(1)),
    call(aten.index_select.default, S, -2, P(5, below=3)),
    call(aten.index_add.default, S, -2, I(5, below=3), X(2, 5, 4)),
    call(aten.gather.default, S, -2, P(2, 5, 4, below=3)),
    call(aten.gather.default, S, 1, I(2, 5, 3, below=3)),
    call(aten.take_along_dim.default, S, I(7, below=24)),
    call(aten.take_along_dim.default, S, I(2, 3, 4, below=24)),
    call(aten.gather.default, X(4), 0, I(below=4)),
    call(aten.scatter.src, S, -2, I(2, 2, 4, below=3), X(2, 2, 4)),
    unrun((4,), aten.histc.default, P(7, below=4), 4, 0, 3),
    unrun((4,), aten.histc.default, P(7, below=4), 4, 0, 4),
    unrun((4,), aten.histc.default, P(7, below=4), 4, 1, 3),
    unrun((3,), aten.histc.default, P(7, below=4), 3, 0, 3),
    call(aten.histc.default, X(7), 4, 0, 3),
    call(aten.bincount.default, P(7, below=4), None, 4),
    call(aten.bincount.default, P(7, below=4), None, 2),
    unrun((5,), aten.bincount.default, P(7, below=4), None, 4),
    call(aten.bincount.default, I(7, below=4), None, 4),
    call(aten.constant_pad_nd.default, S, [0, 0, 1, 0], 0.5),
    call(aten.constant_pad_nd.default, S, [0, 0, 0, 1], 0.5),
    call(aten.pad.default, S, [1, -1]),
    call(aten.pad.default, S, [1, 0, 0, 0, 0, 1]),
]

PLACES = [
    call(aten.max_pool2d.default, X(2, 5, 5), [2]),
    call(aten.bucketize.Scalar, 0.5, X(5)),
    unrun((3, 4), aten.searchsorted.Tensor, X(5), M, sorter=I(5, below=5)),
    call(aten.unfold.default, X(2, 5, 3), -2, 4, 1),
    call(aten.pixel_shuffle.default, X(8, 3, 3), 2),
    call(aten.pixel_shuffle.default, X((4, 3), 3, 3), 2),
    call(aten.pixel_unshuffle.default, X(2, 4, 4), 2),
    call(aten.pixel_unshuffle.default, X(2, 4, 4), 1),
    call(aten.affine_grid_generator.default, X(2, 3, 4), [2, 1, 3, 4, 5], False),
    call(aten.as_strided.default, X(2, Open(15)), [2, 3, 7], [15, 4, 1]),
    call(aten.as_strided.default, X(Open(2), 15), [2, 3, 7], [15, 4, 1]),
    call(aten.im2col.default, X(3, 4, 4), [2, 3], [1, 1], [0, 0], [1, 1]),
    call(aten.col2im.default, X(12, 9), [4, 4], [2, 2], [1, 1], [0, 0], [1, 1]),
    call(aten.col2im.default, X(2, (4, 3), 9), [4, 4], [2, 2], [1, 1], [0, 0], [1, 1]),
    call(aten.fft_fftshift.default, S),
    call(aten.fft_fftshift.default, S, 1),
    call(aten.fft_fft.default, S),
]

PAIRS = [
    call(aten.bilinear.default, X(2, 6, 3), X(2, 6, 4), W(5, 3, 4)),
    call(aten.pairwise_distance.default, S, X(3, 4)),
    call(aten.pairwise_distance.default, S, S, keepdim=True),
    call(aten.cosine_similarity.default, S, S, -1),
    call(aten.cdist.default, X(2, 3, 4, 5), X(3, 6, 5)),
    call(aten.embedding_bag.default, W(5, 4), I(6, below=5), I(2, below=1), False, 0, False, X(6)),
    call(aten.embedding_bag.default, W(5, 4), I(6, below=5), I(2, below=1), False, 2),
]

STRUCTURE = [
    call(aten.view.dtype, M, torch.int64),
    call(aten.unflatten.int, X(2, 12, 3), -2, [3, 4]),
    call(aten.unflatten.int, X(12, 3), 0, [3, 4]),
    call(aten.unsqueeze.default, S, 3),
    call(aten.squeeze.dims, X(2, 3, 1), [0, -1]),
    call(aten.transpose.int, X(), 0, -1),
    call(aten.movedim.intlist, X(2, 3, 4, 5), [-1, 0], [1, -1]),
    call(aten.cat.default, [X(2), X(3)]),
    call(aten.cat.default, [X(0), X(0)]),
    call(aten.cat.default, [X(0, 3), X(2, 3)]),
    call(aten.cat.default, [X(1), X(0)]),
    call(aten.hstack.default, [X(3)]),
    call(aten.vstack.default, [X(3), X(2, 3)]),
    call(aten.column_stack.default, [X(3), X(3, 2)]),
    call(aten.dstack.default, [X(2, 3), X(2, 3)]),
    call(aten.stack.default, [M, M], 0),
    call(aten.stack.default, [M, M], -2),
    call(aten.split_with_sizes.default, X(2, (2, 3)), [2, 4], 1),
    call(aten.split_with_sizes.default, X(2, (2, 3)), [3, 3], 1),
    call(aten.unbind.int, S, -2),
    call(aten.split.Tensor, X(2, 6), 4, -1),
    call(aten.split.Tensor, X(2, 6, 3), 4, 1),
    call(aten.select.int, W(3, 4, 5), 0, 1),
    call(aten.select.int, W(3, 4), 0, 1),
    call(aten.select.int, X(3, Whole(4)), 1, 1),
    call(aten.slice.Tensor, X(2, 6), 1, 0, 9223372036854775807),
    call(aten.slice.Tensor, X(2, 1), 1, 0, 1, 2),
    call(aten.slice.Tensor, X(2, 6), 1, -8, 4),
    call(aten.slice.Tensor, X(2, 6), 1, 0, 4),
    call(aten.slice.Tensor, X(2, 6), 1, None, 1),
    call(aten.slice.Tensor, X(2, 6), 1, 1, 6),
    call(aten.slice.Tensor, X(2, 6), 1, 3, 3),
    call(aten.slice.Tensor, X(2, Whole(6)), 1, 0, 4),
    call(aten.slice.Tensor, X(2, (2, 3)), 1, 2, 6),
    call(aten.slice.Tensor, X(2, (4, 3)), 1, 3, 8),
    call(aten.slice.Tensor, X(2, (4, 3)), 1, 3, 9),
    call(aten.narrow.default, X(2, 6), 1, 0, 6),
    call(aten.narrow.default, X(2, 6), 1, 0, 2),
    call(aten.narrow.default, X(2, (2, 3)), 1, 2, 2),
    call(aten.meshgrid.indexing, [X(), X(3)], indexing="ij"),
    call(aten.meshgrid.indexing, [X(3)], indexing="xy"),
    call(aten.meshgrid.indexing, [X(3), X(4)], indexing="xy"),
    call(aten.diagonal.default, S, 0, -1, -3),
    call(aten.diagonal.default, M),
    call(aten.diag_embed.default, M, 0, 0, 2),
    call(aten.channel_shuffle.default, X(2, (3, 2), 3), 2),
    call(aten.tile.default, M, [2]),
    call(aten.repeat.default, M, [2, 3]),
    call(aten.repeat_interleave.self_int, M, 2),
]

MAPPED = [
    unrun((2, 4), torch._C._functorch._add_batch_dim, S, 1, 2),
    unrun((2, 3, 4), torch._C._functorch._remove_batch_dim, X(2, 4), 1, 3, 1),
    unrun((2, 4, 3), torch._C._functorch._remove_batch_dim, X(2, 4), 1, 3, -1),
]

EDGES = [
    *SUMS, *CONVOLUTIONS, *NORMS, *POINTWISE, *RECURRENT, *ORDERED, *INDEXED, *PLACES, *PAIRS, *STRUCTURE, *MAPPED,
]  # fmt: skip
