"""The block of a first affine layer that reads sparse rows; see blocks."""

from __future__ import annotations

from cnn_core import ops
from cnn_core.blocks import AffineBlock, Block
from cnn_core.ops.sparse import Batch
from cnn_core.parts import Finished, Lane, Parts


class SparseAffineBlock(AffineBlock):
    """An affine layer of a batch of sparse rows, by which nobody needs a gradient."""

    x: Batch

    def forward(self) -> Parts:
        W, b = self.layer.params["W"], self.layer.params["b"]
        n_strips = self.strips[0] if self.strips else 1
        task = ops.native.sparse.forward(self.x, W, b, self.y, self.code, self.slope, n_strips)
        return Parts(rows=[task])

    def backward(self, previous: Block | None) -> Parts:
        sparse, grads = ops.native.sparse, self.layer.grads
        dW: Lane = [sparse.weight_gradient(self.x, self.dy, grads["W"])]
        db: Lane = [ops.native.affine_gradient.bias_gradient(self.dy, grads["b"])]
        return Parts(
            before=[[sparse.transpose(self.x)]],
            after=[dW, db],
            finished=[Finished(grads["W"], dW), Finished(grads["b"], db)],
        )
