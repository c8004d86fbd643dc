"""What in an input a model's answer rests on: saliency, gradient × input, integrated gradients, SmoothGrad, Grad-CAM, Shapley
values (GradientSHAP, KernelSHAP), and pictures of them.

Every method takes a function of a batch, most often a Module, and a target; it is made of md.grad, so it runs on every backend, eager and jitted.

>>> import minidl as md
>>> f = lambda x: md.stack([x[:, 0] * 3.0, x[:, 1] * x[:, 1]], axis=1)  # scores of two classes
>>> integrated_gradients(f, md.tensor([[1.0, 2.0]]), target=1).tolist()
[[0.0, 4.0]]
"""

from __future__ import annotations

from minidl.interpret.attribution import grad_cam, input_times_gradient, integrated_gradients, saliency, smooth_grad
from minidl.interpret.picture import overlay
from minidl.interpret.shap import gradient_shap, kernel_shap

__all__ = [
    "grad_cam", "gradient_shap", "input_times_gradient", "integrated_gradients", "kernel_shap", "overlay", "saliency", "smooth_grad",
]  # fmt: skip
