"""An example call of every operator that has a rule; the probes run them all."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import fx
from torch._higher_order_ops.wrap import wrap_with_autocast, wrap_with_set_grad_enabled

from isthmus.nets.axes.registry import is_pointwise
from isthmus.nets.rules import RULES
from nets.probes import A, B, C, Example, I, Operand, W, X, call, chance

aten = torch.ops.aten


def region() -> fx.GraphModule:
    """A graph of its own: relu(x) and relu(x) * w."""
    graph = fx.Graph()
    x, w = graph.placeholder("x"), graph.placeholder("w")
    y = graph.call_function(aten.relu.default, (x,))
    z = graph.call_function(aten.mul.Tensor, (y, w))
    graph.output((z, y))
    for node, shape in ((x, (3, 4)), (w, (4,)), (y, (3, 4)), (z, (3, 4))):
        node.meta["val"] = torch.empty(shape)
    return fx.GraphModule({}, graph)


def _cells(gates: int, below: int, hidden: int, count: int = 1) -> list[Any]:
    """Weights of ``count`` cells, with biases."""
    return [W(gates * hidden, below), W(gates * hidden, hidden), W(gates * hidden), W(gates * hidden)] * count


V, M, S, IMAGE, VOLUME = X(4), X(3, 4), X(2, 3, 4), X(2, 4, 4, 4), X(1, 2, 4, 4, 4)

SUMS = [
    call(aten.linear.default, X(2, 3, 4), W(5, 4), W(5)),
    call(aten.linear.default, X(2, 4), X(5, 4)),
    call(aten.matmul.default, X(2, 3, 4), W(4, 5)),
    call(aten.matmul.default, X(2, 1, 3, 4), X(5, 4, 2)),
    call(aten.matmul.default, X(4), W(2, 4, 3)),
    call(aten.matmul.default, W(2, 3, 4), X(4)),
    call(aten.matmul.default, X(4), X(4)),
    call(aten.mm.default, W(3, 4), X(4, 5)),
    call(aten.bmm.default, X(2, 3, 4), X(2, 4, 5)),
    call(aten.mv.default, X(3, 4), W(4)),
    call(aten.dot.default, X(4), X(4)),
    call(aten.vdot.default, W(4), W(4)),
    call(aten.addmm.default, W(5), X(3, 4), W(4, 5)),
    call(aten.baddbmm.default, X(2, 3, 5), X(2, 3, 4), W(2, 4, 5)),
    call(aten.addmv.default, W(3), W(3, 4), X(4)),
    call(aten.outer.default, X(3), X(4)),
    call(aten.ger.default, X(3), X(4)),
    call(aten.tensordot.default, X(2, 3, 4), W(4, 5, 3), [1, 2], [2, 0]),
    call(aten.einsum.default, "bct,cd->btd", [X(2, 3, 4), W(3, 5)]),
    call(aten.einsum.default, "bhid,bhjd->hij", [X(2, 3, 4, 2), X(2, 3, 5, 2)]),
    call(aten.einsum.default, "bi,i,ij->b", [X(2, 3), W(3), W(3, 4)]),
    call(aten.einsum.default, "bi,bi->b", [X(2, 1), X(2, 3)]),
    call(aten.einsum.default, "bi,bi->b", [X(2, 1), X(2, 1)]),
    call(aten.scaled_dot_product_attention.default, X(2, 3, 4, 5), X(2, 3, 6, 5), X(2, 3, 6, 2), scale=0.5),
    call(aten.scaled_dot_product_attention.default, X(2, 3, 4, 5), X(2, 3, 4, 5), X(2, 3, 4, 5), X(3, 4, 4), scale=0.5),
    call(aten.scaled_dot_product_attention.default, X(2, 6, 4, 2), X(2, 3, 4, 2), X(2, 3, 4, 2), scale=0.5,
         enable_gqa=True, is_causal=True),
    call(aten.embedding.default, W(5, 4), I(2, 3, below=5)),
    call(aten.sum.default, M),
    call(aten.sum.dim_IntList, S, [1], True),
    call(aten.sum.dim_IntList, S, [-1, 0]),
]  # fmt: skip

CONVOLUTIONS = [
    call(aten.conv1d.default, X(2, 4, 5), W(3, 4, 2), W(3)),
    call(aten.conv1d.padding, X(2, 4, 5), W(4, 2, 3), None, [1], "same", [1], 2),
    call(aten.conv1d.default, X(4, 5), W(6, 2, 2), W(6), groups=2),
    call(aten.conv1d.default, X(2, 4, 5), W(8, 1, 2), W(8), groups=4),
    call(aten.conv2d.default, IMAGE, W(3, 4, 2, 2), W(3), [2, 2]),
    call(aten.conv3d.default, VOLUME, W(3, 2, 2, 2, 2)),
    call(aten.conv_transpose1d.default, X(2, 4, 5), W(4, 3, 2), W(3)),
    call(aten.conv_transpose1d.default, X(2, 4, 5), W(4, 3, 2), W(6), groups=2),
    call(aten.conv_transpose2d.input, IMAGE, W(4, 3, 2, 2)),
    call(aten.conv_transpose3d.input, VOLUME, W(2, 3, 2, 2, 2)),
]

NORMS = [
    call(aten.layer_norm.default, S, [3, 4], W(3, 4), W(3, 4)),
    call(aten.rms_norm.default, S, [4], W(4)),
    call(aten.group_norm.default, X(2, 6, 3), 3, W(6), W(6)),
    call(aten.batch_norm.default, X(3, 4), W(4), W(4), X(4), X(4), True, 0.1, 1e-5, False),
    call(aten.batch_norm.default, X(3, 4, 2), W(4), W(4), X(4), X(4), False, 0.1, 1e-5, False),
    call(aten.instance_norm.default, X(2, 4, 3), W(4), W(4), None, None, True, 0.1, 1e-5, False),
    call(aten.mean.default, M),
    *(call(operator, S, [1], keepdim=True) for operator in (aten.mean.dim, aten.var.dim, aten.std.dim)),
    *(call(operator, S, [-1], correction=0) for operator in (aten.var.correction, aten.std.correction)),
    *(call(operator, M) for operator in (aten.var.default, aten.std.default)),
    call(aten.linalg_vector_norm.default, S, 2, [1]),
    call(aten.norm.ScalarOpt_dim, S, 2, [1]),
    call(aten.norm.Scalar, M),
    *(call(operator, S, [1]) for operator in (aten.var_mean.correction, aten.std_mean.correction)),
    call(aten._weight_norm.default, W(3, 4, 2), W(3, 1, 1), 0),
    call(aten._weight_norm.default, W(3, 4), W(1, 4), 1),
    call(aten._weight_norm.default, W(3, 4), W(), -1),
]

POINTWISE = [
    call(aten.__and__.Tensor, B(3, 4), B(4)),
    call(aten.__or__.Tensor, B(3, 4), B(4)),
    call(aten.__xor__.Tensor, B(3, 4), B(4)),
    call(aten.complex.default, X(3, 4), X(4)),
    call(aten.polar.default, X(3, 4), X(4)),
    call(aten.masked_fill.Scalar, M, B(4), 0.5),
    call(aten.masked_fill.Tensor, M, B(3, 1), X()),
    call(aten.where.self, B(3, 4), X(4), X(3, 1)),
    call(aten.where.ScalarOther, B(4), M, 2.0),
    call(aten.rsub.Scalar, M, 1.0),
    call(aten.clamp.default, M, 0.2, 0.7),
    call(aten.clamp.Tensor, M, X(4), X(3, 1)),
    call(aten.clip.default, M, 0.2),
    call(aten.hardswish.default, M),
    call(aten.log_sigmoid.default, M),
    call(aten.floor_divide.default, M, X(4)),
    *(call(operator, M, 0.5, False) for operator in (aten.dropout.default, aten.alpha_dropout.default)),
    *(call(operator, S, 0.5, False) for operator in (aten.feature_dropout.default, aten.feature_alpha_dropout.default)),
    chance(aten.dropout.default, M, 0.5, True),
    call(aten.to.dtype, M, torch.float32),
    call(aten.to.other, M, X(2)),
    call(aten._to_copy.default, M),
    call(aten.type_as.default, M, X(2)),
    call(aten.contiguous.default, M),
    *(call(getattr(aten, name).default, M) for name in ("alias", "detach", "lift_fresh", "lift_fresh_copy", "zero")),
    call(aten.fill.Scalar, M, 2.0),
    call(aten.fill.Tensor, M, X()),
    chance(aten.bernoulli.default, M),
    chance(aten.bernoulli.Tensor, M, X(4)),
    chance(aten.normal.Tensor_float, M, 1.0),
    chance(aten.normal.Tensor_Tensor, M, X(3, 4)),
    chance(aten.normal.float_Tensor, 0.0, M),
    chance(aten.uniform.default, M),
    chance(aten.exponential.default, M),
    call(aten.copy_.default, M, X(4)),
    call(aten.copy.default, M, X(3, 1)),
    call(aten.prelu.default, S, W(3)),
    call(aten.prelu.default, V, W(1)),
    call(aten.glu.default, X(3, 4)),
    call(aten.glu.default, X(6, 4), 0),
]

RECURRENT = [
    call(aten.lstm.input, X(2, 3, 4), [X(1, 2, 3), X(1, 2, 5)], [W(20, 4), W(20, 3), W(20), W(20), W(3, 5)], True, 1,
         0.0, False, False, True),
    call(aten.lstm.input, X(3, 2, 4), [X(2, 2, 3), X(2, 2, 3)], [*_cells(4, 4, 3), *_cells(4, 3, 3)], True, 2, 0.0,
         False, False, False),
    call(aten.lstm.input, X(2, 3, 4), [X(2, 2, 3), X(2, 2, 3)], _cells(4, 4, 3, 2), True, 1, 0.0, False, True, True),
    call(aten.gru.input, X(3, 2, 4), X(1, 2, 3), _cells(3, 4, 3), True, 1, 0.0, False, False, False),
    call(aten.rnn_tanh.input, X(3, 2, 4), X(1, 2, 3), _cells(1, 4, 3), True, 1, 0.0, False, False, False),
    call(aten.rnn_relu.input, X(3, 2, 4), X(1, 2, 3), _cells(1, 4, 3)[:2], False, 1, 0.0, False, False, False),
    call(aten.gru_cell.default, X(2, 4), X(2, 3), *_cells(3, 4, 3)),
    call(aten.rnn_tanh_cell.default, X(2, 4), X(2, 3), *_cells(1, 4, 3)),
    call(aten.rnn_relu_cell.default, X(2, 4), X(2, 3), *_cells(1, 4, 3)[:2]),
    call(aten.lstm_cell.default, X(2, 4), [X(2, 3), X(2, 3)], *_cells(4, 4, 3)),
]  # fmt: skip

REGIONS = [
    call(wrap_with_set_grad_enabled, False, region(), X(3, 4), W(4)),
    call(wrap_with_autocast, "cpu", torch.bfloat16, False, None, region(), X(3, 4), W(4)),
]

ORDERED = [
    call(aten.softmax.int, S, 1),
    call(aten._softmax.default, S, -1, False),
    call(aten.log_softmax.int, S, 1),
    call(aten._log_softmax.default, S, -1, False),
    *(call(operator, S, 1) for operator in (aten.cumsum.default, aten.cumprod.default, aten.logcumsumexp.default)),
    call(aten.flip.default, S, [0, 2]),
    call(aten.diff.default, S, 1, 2),
    call(aten.diff.default, S, 1, 1, X(2, 2, 4), X(2, 1, 4)),
    call(aten.argsort.default, S, 1),
    call(aten.roll.default, S, [1], [1]),
    call(aten.roll.default, M, [1]),
    call(aten.topk.default, S, 2, 1),
    call(aten.sort.default, S, 1),
    *(call(operator, S, [1], True) for operator in (aten.amax.default, aten.amin.default, aten.logsumexp.default)),
    *(call(operator, S, 1) for operator in (aten.argmax.default, aten.argmin.default, aten.prod.dim_int)),
    *(call(operator, M) for operator in (aten.prod.default, aten.argmax.default, aten.any.default, aten.all.default)),
    *(call(operator, B(3, 4), 1) for operator in (aten.any.dim, aten.all.dim)),
    *(call(operator, M) for operator in (aten.max.default, aten.min.default, aten.median.default)),
    *(call(operator, S, 1, True) for operator in (aten.max.dim, aten.min.dim)),
    call(aten.tril.default, S),
    call(aten.triu.default, S),
    call(aten.one_hot.default, I(3, 4, below=5), 5),
    call(aten.eq.Scalar, I(3, 4, below=5), 2),
    *(
        call(getattr(aten, name).Tensor, M, V)
        for name in ("greater", "greater_equal", "less", "less_equal", "not_equal")
    ),
    call(aten.cross_entropy_loss.default, M, I(3, below=4), W(4)),
    call(aten.nll_loss.default, M, I(3, below=4), W(4), 0),
    call(aten.nll_loss_nd.default, X(2, 4, 3), I(2, 3, below=4)),
]

INDEXED = [
    call(aten.index.Tensor, X(3, 4, 5), [None, I(2, below=4)]),
    call(aten.index.Tensor, X(3, 4, 5), [I(2, 1, below=3), None, I(6, below=5)]),
    call(aten.index.Tensor, X(3, 4, 5), [None, I(2, 1, below=4), I(6, below=5)]),
    call(aten.index_put.default, X(3, 4, 5), [None, I(2, below=4)], X(2, 5)),
    call(aten.index_put.default, X(3, 4, 5), [I(2, below=3)], X(2, 4, 5), True),
    call(aten.index_select.default, S, 1, I(5, below=3)),
    call(aten.index_add.default, S, 1, I(5, below=3), X(2, 5, 4)),
    call(aten.index_copy.default, S, 1, I(2, below=3), X(2, 2, 4)),
    call(aten.index_fill.int_Scalar, S, 1, I(2, below=3), 2.0),
    call(aten.gather.default, S, 1, I(2, 5, 4, below=3)),
    call(aten.take_along_dim.default, S, I(2, 5, 4, below=3), 1),
    call(aten.scatter.src, S, 1, I(2, 2, 4, below=3), X(2, 2, 4)),
    call(aten.scatter.value, S, 1, I(2, 2, 4, below=3), 2.0),
    call(aten.scatter_add.default, S, 1, I(2, 5, 4, below=3), X(2, 5, 4)),
    call(aten.scatter_reduce.two, S, 1, I(2, 5, 4, below=3), X(2, 5, 4), "amax"),
    call(aten.constant_pad_nd.default, S, [1, 2, 0, 1], 0.5),
    call(aten.pad.default, S, [2, 0]),
    call(aten.pad.default, S, [1, 1], "reflect"),
    call(aten.pad.default, S, [-1, 1]),
]

PLACES = [
    *(call(getattr(aten, f"max_pool{n}d").default, X(2, 2, *[3] * n), [2]) for n in (1, 2, 3)),
    *(call(getattr(aten, f"avg_pool{n}d").default, X(2, 2, *[3] * n), [2]) for n in (1, 2, 3)),
    *(call(getattr(aten, f"adaptive_avg_pool{n}d").default, X(2, 2, *[3] * n), [2] * n) for n in (1, 2, 3)),
    *(call(getattr(aten, f"adaptive_max_pool{n}d").default, X(2, 2, *[3] * n), [2] * n) for n in (1, 2, 3)),
    *(call(getattr(aten, f"max_pool{n}d_with_indices").default, X(2, 2, *[3] * n), [2]) for n in (1, 2, 3)),
    *(call(getattr(aten, f"upsample_nearest{n}d").vec, X(2, 2, *[3] * n), None, [2.0] * n) for n in (1, 2, 3)),
    call(aten.upsample_linear1d.vec, X(2, 3, 4), None, False, [2.0]),
    call(aten.upsample_bilinear2d.vec, X(2, 3, 4, 4), None, True, [2.0, 2.0]),
    call(aten.upsample_trilinear3d.vec, VOLUME, [5, 5, 5], False, None),
    call(aten.upsample_bicubic2d.vec, X(2, 3, 4, 4), [5, 6], False, None),
    call(aten._upsample_nearest_exact2d.vec, X(2, 3, 4, 4), [5, 6], None),
    call(aten._upsample_bilinear2d_aa.vec, X(2, 3, 4, 4), [3, 2], False, None),
    *(call(getattr(aten, f"reflection_pad{n}d").default, X(2, 2, *[3] * n), [1] * (2 * n)) for n in (1, 2, 3)),
    *(call(getattr(aten, f"replication_pad{n}d").default, X(2, 2, *[3] * n), [1] * (2 * n)) for n in (1, 2, 3)),
    call(aten.unfold.default, X(2, 3, 5), 2, 3, 1),
    call(aten.as_strided.default, X(2, 15), [2, 3, 7], [15, 4, 1]),
    call(aten.pixel_shuffle.default, X(2, 8, 3, 3), 2),
    call(aten.pixel_unshuffle.default, IMAGE, 2),
]

SOURCES = [
    *(call(getattr(aten, name).default, [3, 4]) for name in ("zeros", "ones")),
    call(aten.full.default, [3, 4], 2.0),
    chance(aten.empty.memory_format, [3, 4]),
    *(chance(getattr(aten, name).default, [3, 4]) for name in ("rand", "randn")),
    chance(aten.randint.default, 5, [3, 4]),
    chance(aten.randint.low, 2, 5, [3, 4]),
    *(call(getattr(aten, name).default, X(2), [3, 4]) for name in ("new_zeros", "new_ones")),
    call(aten.new_full.default, X(2), [3, 4], 2.0),
    chance(aten.new_empty.default, X(2), [3, 4]),
    *(call(getattr(aten, name).default, M) for name in ("zeros_like", "ones_like")),
    call(aten.full_like.default, M, 2.0),
    *(chance(getattr(aten, name).default, M) for name in ("empty_like", "rand_like", "randn_like")),
    call(aten.arange.default, 4),
    call(aten.arange.start_step, 0, 8, 2),
    call(aten.linspace.default, 0, 1, 4),
    call(aten.logspace.default, 0, 1, 4),
    call(aten.eye.m, 3, 4),
    call(aten.scalar_tensor.default, 2.0),
    chance(aten.randperm.default, 4),
    call(aten.tril_indices.default, 3, 3),
    call(aten.triu_indices.default, 3, 3),
]

STRUCTURE = [
    *(call(operator, X(2, 6, 4), [2, 2, 12]) for operator in (aten.view.default, aten.reshape.default)),
    call(aten._unsafe_view.default, X(2, 3, 4), [6, 4]),
    call(aten.view.default, X(4, 6), [6, 4]),
    call(aten.flatten.using_ints, X(2, 3, 4, 2), 1, 2),
    *(call(operator, X(2, 6, 4), X(2, 3, 8)) for operator in (aten.view_as.default, aten.reshape_as.default)),
    call(aten.unflatten.int, X(2, 12, 3), 1, [3, -1]),
    call(aten.unsqueeze.default, S, -2),
    call(aten.squeeze.dims, X(2, 1, 4, 1), [1, -1]),
    call(aten.transpose.int, S, 0, -1),
    *(call(operator, S, 1, 2) for operator in (aten.swapaxes.default, aten.swapdims.default)),
    call(aten.permute.default, S, [2, 0, 1]),
    *(call(operator, S, 0, -1) for operator in (aten.movedim.int, aten.moveaxis.int)),
    call(aten.movedim.intlist, X(2, 3, 4, 5), [0, 1], [-1, 0]),
    *(call(operator, M) for operator in (aten.t.default, aten.numpy_T.default, aten.matrix_H.default)),
    *(call(operator, S) for operator in (aten.mT.default, aten.mH.default, aten.adjoint.default)),
    *(call(operator, [X(2, 3), X(2, 5), X(2, 1)], 1) for operator in (aten.cat.default, aten.concat.default)),
    call(aten.concatenate.default, [X(2, 3), X(4, 3)], -2),
    call(aten.cat.default, [X(0), X(2, 3)], 1),
    call(aten.stack.default, [S, S, S], -1),
    call(aten.split_with_sizes.default, X(2, 6), [1, 3, 2], -1),
    call(aten.split_with_sizes.default, X(6, 2), [6], 0),
    call(aten.split.Tensor, X(2, 6), 2, 1),
    call(aten.chunk.default, X(2, 6), 3, 1),
    call(aten.tensor_split.sections, X(2, 6), 4, 1),
    call(aten.unbind.int, S, 1),
    call(aten.select.int, S, 1, -1),
    call(aten.slice.Tensor, X(2, 6), 1, 2, 5),
    call(aten.slice.Tensor, X(2, 6), -1, -3),
    call(aten.slice.Tensor, X(2, 6), 1, 1, 6, 2),
    call(aten.slice.Tensor, X(2, 6), 1, 0, 6),
    call(aten.narrow.default, X(2, 6), 1, 2, 3),
    call(aten.narrow.default, X(2, 6), -1, -3, 2),
    *(call(operator, X(1, 3, 1), [5, 2, 3, 4]) for operator in (aten.expand.default, aten.broadcast_to.default)),
    call(aten.expand.default, X(2, 3, 1), [-1, -1, 4]),
    call(aten.expand_as.default, X(3, 1), X(2, 3, 4)),
    *(call(operator, X(3, 4), [2, 1, 3]) for operator in (aten.repeat.default, aten.tile.default)),
    call(aten.repeat_interleave.self_int, S, 3, -2),
    call(aten.repeat_interleave.self_int, S, 3, 1, output_size=9),
]

JOINED = [
    call(aten.hstack.default, [X(2, 3), X(2, 5)]),
    call(aten.hstack.default, [X(3), X(5)]),
    call(aten.vstack.default, [X(2, 3), X(4, 3)]),
    call(aten.vstack.default, [X(3), X(3)]),
    call(aten.column_stack.default, [X(3), X(3)]),
    call(aten.column_stack.default, [X(2, 3), X(2, 4)]),
    call(aten.dstack.default, [X(2, 3, 4), X(2, 3, 2)]),
    call(aten.broadcast_tensors.default, [X(3, 1), X(4)]),
    *(call(aten.meshgrid.indexing, [X(3), X(4), X(2)], indexing=order) for order in ("ij", "xy")),
    call(aten.diagonal.default, X(3, 4, 4), 0, 1, 2),
    call(aten.diag_embed.default, X(3, 4)),
    call(aten.channel_shuffle.default, X(2, 6, 3), 3),
    call(aten.ravel.default, X(3, 4)),
]

FURTHER = [
    *(call(operator, S, 1) for operator in (aten.cummax.default, aten.cummin.default, aten.mode.default)),
    call(aten.kthvalue.default, S, 2, 1, True),
    call(aten.median.dim, S, 1),
    call(aten.aminmax.default, S, dim=1),
    call(aten.linalg_norm.default, S, None, [1]),
    call(aten.linalg_norm.default, M, 1.0, [-1], True),
    call(aten.isclose.default, M, X(4)),
    *(call(getattr(aten, name).default, M, X(4), reduction)
      for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "soft_margin_loss")
      for reduction in (0, 1)),
    call(aten.binary_cross_entropy.default, M, X(3, 4), None, 0),
    call(aten.binary_cross_entropy_with_logits.default, M, X(3, 4), None, X(4), 0),
    call(aten.binary_cross_entropy_with_logits.default, M, X(3, 4), None, None, 1),
]  # fmt: skip

PAIRS = [
    call(aten.bilinear.default, X(2, 3), X(2, 4), W(5, 3, 4), W(5)),
    call(aten.cdist.default, X(2, 3, 4), X(5, 4)),
    call(aten._cdist_forward.default, X(3, 4), W(5, 4), 2.0, None),
    call(aten.pairwise_distance.default, X(3, 4), X(1, 4), keepdim=True),
    call(aten.cosine_similarity.default, S, X(3, 1), 1),
    call(aten.embedding_bag.default, W(5, 4), I(6, below=5), I(2, below=1), False, 1),
]

OF_WEIGHTS = [
    call(aten.amax.default, W(3, 4), [1]),
    call(aten.amin.default, W(3, 4), [0], True),
    *(call(operator, W(3, 4)) for operator in (aten.max.default, aten.min.default)),
    call(aten.max.dim, W(3, 4), 1),
    call(aten.argmax.default, W(3, 4), 1),
    call(aten.fake_quantize_per_tensor_affine.default, M, 0.1, 0, -128, 127),
    call(aten.fake_quantize_per_channel_affine.default, Operand((3, 4), dtype=torch.float32),
         Operand((4,), dtype=torch.float32), Operand((4,), below=2, dtype=torch.int32), 1, -8, 7),
]  # fmt: skip

PUT_BACK = [
    call(aten.max_unpool2d.default, X(2, 3, 2, 2), I(2, 3, 2, 2, below=16), [4, 4]),
    call(aten.max_unpool3d.default, X(1, 3, 2, 2, 2), I(1, 3, 2, 2, 2, below=64), [4, 4, 4], [2, 2, 2], [0, 0, 0]),
    call(aten.bucketize.Tensor, M, X(5)),
    call(aten.searchsorted.Tensor, X(5), M),
    call(aten.searchsorted.Tensor, X(3, 5), M),
]

SPARSE = [
    call(aten._sparse_mm.default, A(3, 4), X(4, 2)),
    call(aten._sparse_addmm.default, X(3, 2), A(3, 4), X(4, 2)),
    call(aten.sparse_coo_tensor.indices_size, I(2, 3, below=4), X(3), [4, 4]),
    call(aten._sparse_coo_tensor_unsafe.default, I(2, 3, below=4), X(3), [4, 4]),
    *(call(operator, A(3, 4)) for operator in (aten.to_dense.default, aten.coalesce.default,
                                               aten._values.default, aten._indices.default)),
    *(call(operator, M) for operator in (aten.to_sparse.default, aten._to_sparse.default)),
]  # fmt: skip

SAMPLES = [
    *(call(operator, IMAGE, X(2, 3, 5, 2), 0, 0, False)
      for operator in (aten.grid_sampler.default, aten.grid_sampler_2d.default)),
    call(aten.grid_sampler_3d.default, VOLUME, X(1, 2, 3, 2, 3), 0, 0, False),
    call(aten.affine_grid_generator.default, X(2, 2, 3), [2, 1, 3, 4], False),
    call(aten.im2col.default, X(2, 3, 4, 4), [2, 2], [1, 1], [0, 0], [1, 1]),
    call(aten.col2im.default, X(2, 12, 9), [4, 4], [2, 2], [1, 1], [0, 0], [1, 1]),
]  # fmt: skip

SPECTRA = [
    *(call(getattr(aten, f"fft_{kind}").default, X(2, 3, 6), None, 1)
      for kind in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")),
    *(call(getattr(aten, f"fft_{kind}2").default, X(2, 3, 6))
      for kind in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")),
    *(call(getattr(aten, f"fft_{kind}n").default, X(2, 3, 6), [4], [1])
      for kind in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")),
    call(aten.fft_fftn.default, M),
    call(aten.fft_rfftn.default, S, [3]),
    *(call(operator, S, [1]) for operator in (aten.fft_fftshift.default, aten.fft_ifftshift.default)),
    call(aten.view_as_complex.default, X(3, 2)),
    *(call(getattr(aten, name).default, C(3, 4))
      for name in ("view_as_real", "real", "imag", "conj", "_conj", "resolve_conj", "resolve_neg")),
]  # fmt: skip

FROZEN_THOUGH_INDEPENDENT = {
    "scaled_dot_product_attention": "positions of attention: a mask or an order may count them",
    "lstm": "batch and positions", "gru": "batch and positions", "rnn_tanh": "batch and positions",
    "rnn_relu": "batch and positions",
    "tril": "counted positions", "triu": "counted positions", "diagonal": "counted positions",
    "diag_embed": "counted positions",
    "nll_loss": "a loss is not cut",
    "index_put": "written by index", "index_add": "written by index", "scatter": "written by index",
    "scatter_add": "written by index", "scatter_reduce": "written by index",
    "grid_sampler": "places", "grid_sampler_2d": "places", "grid_sampler_3d": "places",
    "affine_grid_generator": "rows of a matrix", "as_strided": "places in memory",
    **dict.fromkeys(("_sparse_mm", "_sparse_addmm", "to_sparse", "_to_sparse", "to_dense", "coalesce"), "sparse"),
}  # fmt: skip
"""Operators that freeze more than the probe shows to be needed, and why."""

UNPROBED = {  # tested in networks (test_experts.py)
    "aten::_grouped_mm": "offsets in order", "transformers::grouped_mm_fallback": "offsets in order",
    "aten::histc": "positions that a router chose", "aten::bincount": "positions that a router chose",
    "aten::nonzero": "as many results as there are", "aten::nonzero_numpy": "as many results as there are",
    "aten::where.default": "as many results as there are",
}  # fmt: skip
"""Operators whose operands cannot be drawn at random."""

EXAMPLES = [
    *SUMS, *CONVOLUTIONS, *NORMS, *POINTWISE, *RECURRENT, *REGIONS, *ORDERED, *INDEXED, *PLACES, *SOURCES, *STRUCTURE,
    *PAIRS, *OF_WEIGHTS, *PUT_BACK, *SPARSE, *SAMPLES, *SPECTRA, *JOINED, *FURTHER,
]  # fmt: skip


def elementwise_operators() -> list[str]:
    """Return the operators that torch tags as elementwise: they share one rule."""
    names = {full.split("::")[1].split(".")[0] for full in torch._C._dispatch_get_all_op_names() if "aten::" in full}
    plain = [name for name in sorted(names) if not name.endswith("_") and hasattr(aten, name)]
    packets = [getattr(aten, name) for name in plain if f"aten::{name}" not in RULES]
    return [packet.__name__ for packet in packets if is_pointwise(getattr(packet, packet.overloads()[0]))]


def elementwise_examples(name: str) -> list[Example]:
    """Return a call of every overload of an elementwise operator, with operands that have to be broadcast."""
    packet = getattr(aten, name)
    overloads = [getattr(packet, overload) for overload in packet.overloads()]
    listed = [example for example in POINTWISE if example.operator in overloads]
    made = (_example(overload) for overload in overloads if f"aten::{name}.{overload._overloadname}" not in RULES)
    return [*listed, *(example for example in made if example is not None)]


def _example(overload: Any) -> Example | None:
    schema = overload._schema
    if any(argument.is_out for argument in schema.arguments) or [str(r.type) for r in schema.returns] != ["Tensor"]:
        return None
    needed = [str(a.type) for a in schema.arguments if not a.kwarg_only and not a.has_default_value()]
    for make in (X, partial(I, below=3), B):
        operands = iter([make(3, 4), make(4), make(3, 1)])
        numbers = {"number": 2, "int": 1}
        arguments = tuple(next(operands) if kind == "Tensor" else numbers.get(kind, 0.5) for kind in needed)
        try:
            overload(*(a.make(torch.Generator()) if isinstance(a, Operand) else a for a in arguments))
        except (RuntimeError, NotImplementedError):
            continue
        return Example(overload, arguments, random="rrelu" in schema.name)
    return None
