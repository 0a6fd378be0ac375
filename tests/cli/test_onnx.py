"""Networks exported as ONNX: accepted by the onnx checker, and the same answers as ours, computed by a few lines of numpy
that know only the operators found in the file."""
import sys

import numpy as np

try:
    import onnx
    from onnx import numpy_helper
except ImportError:
    print("skipped: python3-onnx is not installed")
    sys.exit(77)
import h5py
from program import main, padded, predictions, run, train


def convolution(x, w, strides, pads):
    x = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], (2, 3))[:, :, ::strides[0], ::strides[1]]
    return np.einsum("nchwij,ocij->nohw", windows, w, optimize=True)


def greatest(x, kernel, strides, pads):
    x = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])), constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(x, kernel, (2, 3))[:, :, ::strides[0], ::strides[1]].max((4, 5))


def normalise(x, scale, bias, mean, variance, epsilon):
    column = lambda v: v.reshape(1, -1, 1, 1)
    return (x - column(mean)) / np.sqrt(column(variance) + epsilon) * column(scale) + column(bias)


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


OPERATORS = {
    "Sub": lambda x, a: x[0] - x[1],
    "Div": lambda x, a: x[0] / x[1],
    "Add": lambda x, a: x[0] + x[1],
    "Relu": lambda x, a: np.maximum(x[0], 0),
    "Conv": lambda x, a: convolution(x[0], x[1], a["strides"], a["pads"]),
    "MaxPool": lambda x, a: greatest(x[0], a["kernel_shape"], a["strides"], a["pads"]),
    "BatchNormalization": lambda x, a: normalise(*x, a["epsilon"]),
    "GlobalAveragePool": lambda x, a: x[0].mean((2, 3), keepdims=True),
    "Flatten": lambda x, a: x[0].reshape(len(x[0]), -1),
    "Gemm": lambda x, a: x[0] @ (x[1].T if a["transB"] else x[1]) + x[2],
    "Softmax": lambda x, a: softmax(x[0]),
}


def execute(model, pictures):
    values = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    values["pictures"] = pictures.astype(np.float64)
    for node in model.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        values[node.output[0]] = OPERATORS[node.op_type]([values[name] for name in node.input], attributes)
    return {o.name: values[o.name] for o in model.graph.output}


def a_run_to_export_ends_well(work):
    done = train(work, "small", "train.epochs=2")
    assert done.returncode == 0, done.stderr


def load(work, run_name, *arguments):
    path = work.file("model.onnx")
    done = run("export", work.file(run_name), "--onnx", path, *arguments)
    assert done.returncode == 0, done.stderr
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == 13
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    return model


def pictures_of(data, count):
    with h5py.File(data) as f:
        return f["test/images"][:count].transpose(0, 3, 1, 2)


def the_ensembles_answers_are_ours(work):
    model = load(work, "small")
    expected, pictures = predictions(work, "small", work.data, 20), pictures_of(work.data, 20)
    for rows in (20, 1):
        out = execute(model, pictures[:rows])
        assert set(out) == {"logits_a", "logits_b", "probabilities"}
        assert np.abs(out["probabilities"] - expected[:rows]).max() < 1e-4
    assert np.ptp(expected) > 0.05  # not all the same


def each_networks_answers_make_up_the_ensembles(work):
    expected, pictures, both = predictions(work, "small", work.data, 10), pictures_of(work.data, 10), []
    for letter in "ab":
        out = execute(load(work, "small", "--network", letter), pictures)
        assert set(out) == {"logits", "probabilities"}
        assert np.allclose(softmax(out["logits"]), out["probabilities"])
        both.append(out["probabilities"])
    assert np.abs(np.mean(both, 0) - expected).max() < 1e-4 and np.abs(both[0] - both[1]).max() > 1e-3


def a_bottleneck_networks_answers_are_ours(work):
    done = train(work, "bottleneck", "model.arch=preact_resnet50", "model.width=4", "train.epochs=1", "train.warmup=1",
                 "pretrain.epochs=0")
    assert done.returncode == 0, done.stderr
    out = execute(load(work, "bottleneck"), pictures_of(work.data, 5))
    assert np.abs(out["probabilities"] - predictions(work, "bottleneck", work.data, 5)).max() < 1e-4


def torchvisions_networks_train_under_mpirun_and_answer_as_ours(work):
    data = padded(work)
    for arch, width in (("resnet18", 4), ("resnet50", 2)):
        done = train(work, arch, f"data.train={data}", f"model.arch={arch}", f"model.width={width}", "pretrain.epochs=1",
                     "train.epochs=2", "train.warmup=1", ranks=2)
        assert done.returncode == 0, done.stderr
        model = load(work, arch)
        assert "MaxPool" in {node.op_type for node in model.graph.node}
        out = execute(model, pictures_of(data, 6))
        assert np.abs(out["probabilities"] - predictions(work, arch, data, 6)).max() < 1e-4, arch
    done = train(work, "refused", "model.arch=resnet18", "--dry-run")
    assert done.returncode == 2 and "32x32" in done.stderr, done.stderr


main([a_run_to_export_ends_well, the_ensembles_answers_are_ours, each_networks_answers_make_up_the_ensembles,
      a_bottleneck_networks_answers_are_ours, torchvisions_networks_train_under_mpirun_and_answer_as_ours])
