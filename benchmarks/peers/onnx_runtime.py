"""ONNX Runtime: inference of a graph built from NumPy weights, all optimizations on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from peers import Timed, fastest, predictions
from workloads import Workload

PLAIN = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "flatten": "Flatten"}


def graph(workload: Workload, dtype: str) -> bytes:
    """The network as an ONNX model; dropout does nothing in inference and is left out."""
    rng, shape, nodes, tensors = np.random.default_rng(0), workload.input_shape, [], []

    def add(kind: str, weights: tuple[int, ...] = (), units: int = 0, **attributes: Any) -> None:
        names = [f"v{len(nodes)}"]
        if weights:
            scale = math.sqrt(2 * units / math.prod(weights))
            for name, array in (("W", rng.normal(0, scale, weights)), ("b", np.zeros(units))):
                names.append(f"{name}{len(nodes)}")
                tensors.append(numpy_helper.from_array(array.astype(dtype), names[-1]))
        nodes.append(helper.make_node(kind, names, [f"v{len(nodes) + 1}"], **attributes))

    for name, *arguments in workload.layers:
        if name == "affine":
            add("Gemm", (shape[0], arguments[0]), arguments[0])
            shape = (arguments[0],)
        elif name == "conv":
            filters, size, padding = arguments
            add("Conv", (filters, shape[0], size, size), filters, pads=[padding] * 4)
            shape = (filters, *(side + 2 * padding - size + 1 for side in shape[1:]))
        elif name == "pool":
            add("MaxPool", kernel_shape=arguments * 2, strides=arguments * 2)
            shape = (shape[0], *(side // arguments[0] for side in shape[1:]))
        elif name in PLAIN:
            add(PLAIN[name])
            shape = (math.prod(shape),) if name == "flatten" else shape
    kind = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}[dtype]
    x = helper.make_tensor_value_info("v0", kind, ["N", *workload.input_shape])
    y = helper.make_tensor_value_info(f"v{len(nodes)}", kind, ["N", *shape])
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(
        helper.make_graph(nodes, workload.title, [x], [y], tensors), opset_imports=opset
    )
    model.ir_version = 9
    return model.SerializeToString()


class OnnxRuntime:
    packages = ("onnxruntime", "onnx")

    def __init__(self, threads: int) -> None:
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL

    def inference(self, workload: Workload, x: Any, dtype: str) -> Timed:
        session = onnxruntime.InferenceSession(
            graph(workload, dtype), self.options, providers=["CPUExecutionProvider"]
        )
        rows = x.reshape(len(x), *workload.input_shape)
        return fastest(predictions(lambda part: session.run(None, {"v0": part}), rows))
