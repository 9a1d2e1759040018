# SPDX-License-Identifier: MIT
# Generated: python tests/check_stubs.py --write
from __future__ import annotations
import numpy
import numpy.typing
import typing
import typing_extensions

__all__: list[str] = [
    "Plan",
    "StepState",
    "activation_uses_output",
    "adagrad_step",
    "adam_step",
    "binary_cross_entropy",
    "binary_cross_entropy_backward",
    "binary_cross_entropy_value_and_grad",
    "binary_cross_entropy_with_logits",
    "binary_cross_entropy_with_logits_backward",
    "binary_cross_entropy_with_logits_value_and_grad",
    "clip_scale",
    "cosine_embedding_loss",
    "cosine_embedding_loss_backward",
    "cosine_embedding_loss_value_and_grad",
    "cross_entropy",
    "cross_entropy_backward",
    "cross_entropy_value_and_grad",
    "ctc_loss",
    "ctc_loss_backward",
    "ctc_loss_value_and_grad",
    "dropout",
    "dropout_backward",
    "dropout_rows",
    "elu",
    "elu_backward",
    "fused_mlp",
    "fused_mlp_backward",
    "fused_mlp_trains_on_chip",
    "gaussian_nll_loss",
    "gaussian_nll_loss_backward",
    "gaussian_nll_loss_value_and_grad",
    "gelu",
    "gelu_backward",
    "gelu_tanh",
    "gelu_tanh_backward",
    "hardsigmoid",
    "hardsigmoid_backward",
    "hardswish",
    "hardswish_backward",
    "hardtanh",
    "hardtanh_backward",
    "hinge_embedding_loss",
    "hinge_embedding_loss_backward",
    "hinge_embedding_loss_value_and_grad",
    "huber_loss",
    "huber_loss_backward",
    "huber_loss_value_and_grad",
    "identity",
    "identity_backward",
    "isa",
    "kl_div",
    "kl_div_backward",
    "kl_div_value_and_grad",
    "l1_loss",
    "l1_loss_backward",
    "l1_loss_value_and_grad",
    "leaky_relu",
    "leaky_relu_backward",
    "linear",
    "linear_backward",
    "log_softmax",
    "log_softmax_backward",
    "margin_ranking_loss",
    "margin_ranking_loss_backward",
    "margin_ranking_loss_value_and_grad",
    "matmul",
    "matmul_backward",
    "mish",
    "mish_backward",
    "mse_loss",
    "mse_loss_backward",
    "mse_loss_value_and_grad",
    "multi_margin_loss",
    "multi_margin_loss_backward",
    "multi_margin_loss_value_and_grad",
    "multilabel_margin_loss",
    "multilabel_margin_loss_backward",
    "multilabel_margin_loss_value_and_grad",
    "multilabel_soft_margin_loss",
    "multilabel_soft_margin_loss_backward",
    "multilabel_soft_margin_loss_value_and_grad",
    "nll_loss",
    "nll_loss_backward",
    "nll_loss_value_and_grad",
    "num_threads",
    "poisson_nll_loss",
    "poisson_nll_loss_backward",
    "poisson_nll_loss_value_and_grad",
    "prelu",
    "prelu_backward",
    "random_normal",
    "random_uniform",
    "release_memory",
    "relu",
    "relu6",
    "relu6_backward",
    "relu_backward",
    "rmsprop_step",
    "scale",
    "selu",
    "selu_backward",
    "set_num_threads",
    "sgd_step",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "smooth_l1_loss",
    "smooth_l1_loss_backward",
    "smooth_l1_loss_value_and_grad",
    "soft_margin_loss",
    "soft_margin_loss_backward",
    "soft_margin_loss_value_and_grad",
    "softmax",
    "softmax_backward",
    "softplus",
    "softplus_backward",
    "supported_isas",
    "tanh",
    "tanh_backward",
    "triplet_margin_loss",
    "triplet_margin_loss_backward",
    "triplet_margin_loss_value_and_grad",
]

class StepState:
    def __init__(self) -> None: ...
    @property
    def grad_scale(self) -> float: ...
    @grad_scale.setter
    def grad_scale(self, arg1: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def learning_rate(self) -> float: ...
    @learning_rate.setter
    def learning_rate(self, arg1: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def offset(self) -> int: ...
    @offset.setter
    def offset(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def seed(self) -> int: ...
    @seed.setter
    def seed(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def step(self) -> int: ...
    @step.setter
    def step(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None: ...

class Plan:
    _one_kernel: bool
    def __init__(self) -> None: ...
    def _join(self, other: Plan) -> None: ...
    def activation(
        self, y: typing.Any, x: typing.Any, activation: typing.Any, activation_args: typing.Any
    ) -> None: ...
    def activation_backward(
        self,
        dx: typing.Any,
        dy: typing.Any,
        saved: typing.Any,
        saved_is_output: bool,
        activation: typing.Any,
        activation_args: typing.Any,
    ) -> None: ...
    def adagrad_step(
        self,
        params: typing.Any,
        grads: typing.Any,
        sums: typing.Any,
        lr_decay: typing.SupportsFloat | typing.SupportsIndex,
        eps: typing.SupportsFloat | typing.SupportsIndex,
        weight_decay: typing.SupportsFloat | typing.SupportsIndex,
        l1_decay: typing.SupportsFloat | typing.SupportsIndex,
        maximize: bool,
        state: typing.Any,
        rounded: typing.Any = None,
    ) -> None: ...
    def adam_step(
        self,
        params: typing.Any,
        grads: typing.Any,
        means: typing.Any,
        squares: typing.Any,
        max_squares: typing.Any,
        beta1: typing.SupportsFloat | typing.SupportsIndex,
        beta2: typing.SupportsFloat | typing.SupportsIndex,
        eps: typing.SupportsFloat | typing.SupportsIndex,
        decoupled: bool,
        weight_decay: typing.SupportsFloat | typing.SupportsIndex,
        l1_decay: typing.SupportsFloat | typing.SupportsIndex,
        maximize: bool,
        state: typing.Any,
        rounded: typing.Any = None,
    ) -> None: ...
    def clip_scale(
        self,
        grads: typing.Any,
        max_norm: typing.SupportsFloat | typing.SupportsIndex,
        states: typing.Any,
    ) -> None: ...
    def cross_entropy(
        self,
        loss: typing.Any,
        dlogits: typing.Any,
        logits: typing.Any,
        target: typing.Any,
        weight: typing.Any,
        ignore_index: typing.Any,
        reduction: typing.Any,
        label_smoothing: typing.Any,
    ) -> None: ...
    def dropout(
        self,
        y: typing.Any,
        x: typing.Any,
        p: typing.SupportsFloat | typing.SupportsIndex,
        offset: typing.SupportsInt | typing.SupportsIndex,
        state: typing.Any,
    ) -> None: ...
    def elementwise_loss(
        self,
        name: str,
        loss: typing.Any,
        dinput: typing.Any,
        input: typing.Any,
        target: typing.Any,
        c: typing.Any,
        weight: typing.Any,
        number: typing.Any,
        logarithm: typing.Any,
        full: typing.Any,
        reduction: typing.Any,
    ) -> None: ...
    def fused_mlp(
        self,
        y: typing.Any,
        x: typing.Any,
        weights: typing.Any,
        biases: typing.Any,
        activation: typing.Any,
        output_activation: typing.Any,
        activation_args: typing.Any,
        output_activation_args: typing.Any,
    ) -> None: ...
    def fused_mlp_backward(
        self,
        dx: typing.Any,
        dweights: typing.Any,
        dbiases: typing.Any,
        dy: typing.Any,
        x: typing.Any,
        weights: typing.Any,
        biases: typing.Any,
        activation: typing.Any,
        output_activation: typing.Any,
        activation_args: typing.Any,
        output_activation_args: typing.Any,
    ) -> None: ...
    def input(self, placeholder: typing.Any) -> None: ...
    def linear(
        self,
        y: typing.Any,
        z: typing.Any,
        x: typing.Any,
        weight: typing.Any,
        bias: typing.Any,
        activation: typing.Any,
        activation_args: typing.Any,
    ) -> None: ...
    def linear_backward(
        self,
        dx: typing.Any,
        dweight: typing.Any,
        dbias: typing.Any,
        dy: typing.Any,
        x: typing.Any,
        weight: typing.Any,
        saved: typing.Any,
        saved_is_output: bool,
        activation: typing.Any,
        activation_args: typing.Any,
    ) -> None: ...
    def nll_loss(
        self,
        loss: typing.Any,
        dinput: typing.Any,
        input: typing.Any,
        target: typing.Any,
        weight: typing.Any,
        ignore_index: typing.Any,
        reduction: typing.Any,
    ) -> None: ...
    def output(self, placeholder: typing.Any) -> None: ...
    def prelu(self, y: typing.Any, x: typing.Any, weight: typing.Any) -> None: ...
    def prelu_backward(
        self, dx: typing.Any, dweight: typing.Any, dy: typing.Any, x: typing.Any, weight: typing.Any
    ) -> None: ...
    def rmsprop_step(
        self,
        params: typing.Any,
        grads: typing.Any,
        squares: typing.Any,
        momentum_buffers: typing.Any,
        means: typing.Any,
        alpha: typing.SupportsFloat | typing.SupportsIndex,
        eps: typing.SupportsFloat | typing.SupportsIndex,
        momentum: typing.SupportsFloat | typing.SupportsIndex,
        weight_decay: typing.SupportsFloat | typing.SupportsIndex,
        l1_decay: typing.SupportsFloat | typing.SupportsIndex,
        maximize: bool,
        state: typing.Any,
        rounded: typing.Any = None,
    ) -> None: ...
    def run(self, batch: typing.Any, accumulate: bool, out: typing.Any = None) -> typing.Any: ...
    def sgd_step(
        self,
        params: typing.Any,
        grads: typing.Any,
        momentum_buffers: typing.Any,
        momentum: typing.SupportsFloat | typing.SupportsIndex,
        dampening: typing.SupportsFloat | typing.SupportsIndex,
        nesterov: bool,
        weight_decay: typing.SupportsFloat | typing.SupportsIndex,
        l1_decay: typing.SupportsFloat | typing.SupportsIndex,
        maximize: bool,
        state: typing.Any,
        rounded: typing.Any = None,
    ) -> None: ...
    def softmax(
        self,
        y: typing.Any,
        x: typing.Any,
        axis: typing.SupportsInt | typing.SupportsIndex,
        log: bool,
    ) -> None: ...
    def softmax_backward(
        self,
        dx: typing.Any,
        dy: typing.Any,
        y: typing.Any,
        axis: typing.SupportsInt | typing.SupportsIndex,
        log: bool,
    ) -> None: ...

def _copy(
    target: numpy.typing.NDArray[numpy.float32],
    source: numpy.typing.NDArray[numpy.float32],
    rounds: typing.SupportsInt | typing.SupportsIndex,
) -> float: ...
def _from_dlpack(tensor: typing.Any) -> numpy.ndarray: ...
def _jobs_and_tasks() -> tuple[int, int]: ...
def _multiply_add(
    rounds: typing.SupportsInt | typing.SupportsIndex,
    threads: typing.SupportsInt | typing.SupportsIndex,
) -> float: ...
def _set_isa(name: str, emulated: bool = False) -> None: ...
def _to_dlpack(
    array: numpy.ndarray, versioned: bool, copied: bool
) -> typing_extensions.CapsuleType: ...
def activation_uses_output(activation: typing.Any, activation_args: typing.Any) -> bool: ...
def adagrad_step(
    params: typing.Any,
    grads: typing.Any,
    sums: typing.Any,
    lr_decay: typing.SupportsFloat | typing.SupportsIndex,
    eps: typing.SupportsFloat | typing.SupportsIndex,
    weight_decay: typing.SupportsFloat | typing.SupportsIndex,
    l1_decay: typing.SupportsFloat | typing.SupportsIndex,
    maximize: bool,
    state: StepState,
    rounded: typing.Any = None,
) -> None: ...
def adam_step(
    params: typing.Any,
    grads: typing.Any,
    means: typing.Any,
    squares: typing.Any,
    max_squares: typing.Any,
    beta1: typing.SupportsFloat | typing.SupportsIndex,
    beta2: typing.SupportsFloat | typing.SupportsIndex,
    eps: typing.SupportsFloat | typing.SupportsIndex,
    decoupled: bool,
    weight_decay: typing.SupportsFloat | typing.SupportsIndex,
    l1_decay: typing.SupportsFloat | typing.SupportsIndex,
    maximize: bool,
    state: StepState,
    rounded: typing.Any = None,
) -> None: ...
def binary_cross_entropy(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def binary_cross_entropy_backward(
    grad_output: typing.Any,
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def binary_cross_entropy_value_and_grad(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
) -> tuple[typing.Any, typing.Any]: ...
def binary_cross_entropy_with_logits(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def binary_cross_entropy_with_logits_backward(
    grad_output: typing.Any,
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def binary_cross_entropy_with_logits_value_and_grad(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
) -> tuple[typing.Any, typing.Any]: ...
def clip_scale(
    grads: typing.Any, max_norm: typing.Any, norm_type: typing.Any, state: StepState
) -> typing.Any: ...
def cosine_embedding_loss(
    input1: typing.Any,
    input2: typing.Any,
    target: typing.Any,
    margin: typing.Any,
    reduction: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def cosine_embedding_loss_backward(
    grad_output: typing.Any,
    input1: typing.Any,
    input2: typing.Any,
    target: typing.Any,
    margin: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def cosine_embedding_loss_value_and_grad(
    input1: typing.Any,
    input2: typing.Any,
    target: typing.Any,
    margin: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
) -> tuple[typing.Any, typing.Any]: ...
def cross_entropy(
    input: typing.Any,
    target: typing.Any,
    weight: typing.Any,
    ignore_index: typing.Any,
    reduction: typing.Any,
    label_smoothing: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def cross_entropy_backward(
    grad_output: typing.Any,
    input: typing.Any,
    target: typing.Any,
    weight: typing.Any,
    ignore_index: typing.Any,
    reduction: typing.Any,
    label_smoothing: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def cross_entropy_value_and_grad(
    input: typing.Any,
    target: typing.Any,
    weight: typing.Any,
    ignore_index: typing.Any,
    reduction: typing.Any,
    label_smoothing: typing.Any,
    wrt: typing.Any,
    variant: typing.Any,
) -> tuple[typing.Any, typing.Any]: ...
def ctc_loss(
    log_probs: typing.Any,
    targets: typing.Any,
    input_lengths: typing.Any,
    target_lengths: typing.Any,
    blank: typing.Any,
    reduction: typing.Any,
    zero_infinity: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def ctc_loss_backward(
    grad_output: typing.Any,
    log_probs: typing.Any,
    targets: typing.Any,
    input_lengths: typing.Any,
    target_lengths: typing.Any,
    blank: typing.Any,
    reduction: typing.Any,
    zero_infinity: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def ctc_loss_value_and_grad(
    log_probs: typing.Any,
    targets: typing.Any,
    input_lengths: typing.Any,
    target_lengths: typing.Any,
    blank: typing.Any,
    reduction: typing.Any,
    zero_infinity: typing.Any,
    wrt: typing.Any,
) -> typing.Any: ...
def dropout(
    input: typing.Any,
    p: typing.Any,
    seed: typing.SupportsInt | typing.SupportsIndex,
    offset: typing.SupportsInt | typing.SupportsIndex,
    out: typing.Any,
) -> typing.Any: ...
def dropout_backward(
    grad_output: typing.Any,
    input: typing.Any,
    p: typing.Any,
    seed: typing.SupportsInt | typing.SupportsIndex,
    offset: typing.SupportsInt | typing.SupportsIndex,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def dropout_rows(
    input: typing.Any,
    p: typing.Any,
    seed: typing.SupportsInt | typing.SupportsIndex,
    offset: typing.SupportsInt | typing.SupportsIndex,
    first: typing.SupportsInt | typing.SupportsIndex,
    step: typing.SupportsInt | typing.SupportsIndex,
) -> typing.Any: ...
def elu(input: typing.Any, alpha: typing.Any, out: typing.Any) -> typing.Any: ...
def elu_backward(
    grad_output: typing.Any,
    input: typing.Any,
    alpha: typing.Any,
    output: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def fused_mlp(
    input: typing.Any,
    weights: typing.Any,
    biases: typing.Any,
    activation: typing.Any,
    output_activation: typing.Any,
    activation_args: typing.Any,
    output_activation_args: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def fused_mlp_backward(
    grad_output: typing.Any,
    input: typing.Any,
    weights: typing.Any,
    biases: typing.Any,
    activation: typing.Any,
    output_activation: typing.Any,
    activation_args: typing.Any,
    output_activation_args: typing.Any,
    wrt: typing.Any,
    accumulate: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def fused_mlp_trains_on_chip(
    input: typing.Any,
    weights: typing.Any,
    biases: typing.Any,
    activation: typing.Any,
    output_activation: typing.Any,
    activation_args: typing.Any,
    output_activation_args: typing.Any,
) -> bool: ...
def gaussian_nll_loss(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def gaussian_nll_loss_backward(
    grad_output: typing.Any,
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def gaussian_nll_loss_value_and_grad(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
) -> tuple[typing.Any, typing.Any]: ...
def gelu(input: typing.Any, out: typing.Any) -> typing.Any: ...
def gelu_backward(
    grad_output: typing.Any, input: typing.Any, output: typing.Any, wrt: typing.Any, out: typing.Any
) -> typing.Any: ...
def gelu_tanh(input: typing.Any, out: typing.Any) -> typing.Any: ...
def gelu_tanh_backward(
    grad_output: typing.Any, input: typing.Any, output: typing.Any, wrt: typing.Any, out: typing.Any
) -> typing.Any: ...
def hardsigmoid(input: typing.Any, out: typing.Any) -> typing.Any: ...
def hardsigmoid_backward(
    grad_output: typing.Any, input: typing.Any, output: typing.Any, wrt: typing.Any, out: typing.Any
) -> typing.Any: ...
def hardswish(input: typing.Any, out: typing.Any) -> typing.Any: ...
def hardswish_backward(
    grad_output: typing.Any, input: typing.Any, output: typing.Any, wrt: typing.Any, out: typing.Any
) -> typing.Any: ...
def hardtanh(
    input: typing.Any, alpha: typing.Any, beta: typing.Any, out: typing.Any
) -> typing.Any: ...
def hardtanh_backward(
    grad_output: typing.Any,
    input: typing.Any,
    alpha: typing.Any,
    beta: typing.Any,
    output: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def hinge_embedding_loss(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def hinge_embedding_loss_backward(
    grad_output: typing.Any,
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def hinge_embedding_loss_value_and_grad(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
) -> tuple[typing.Any, typing.Any]: ...
def huber_loss(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def huber_loss_backward(
    grad_output: typing.Any,
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def huber_loss_value_and_grad(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
) -> tuple[typing.Any, typing.Any]: ...
def identity(input: typing.Any, out: typing.Any) -> typing.Any: ...
def identity_backward(
    grad_output: typing.Any, input: typing.Any, output: typing.Any, wrt: typing.Any, out: typing.Any
) -> typing.Any: ...
def isa() -> str: ...
def kl_div(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def kl_div_backward(
    grad_output: typing.Any,
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def kl_div_value_and_grad(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
) -> tuple[typing.Any, typing.Any]: ...
def l1_loss(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def l1_loss_backward(
    grad_output: typing.Any,
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def l1_loss_value_and_grad(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
) -> tuple[typing.Any, typing.Any]: ...
def leaky_relu(input: typing.Any, alpha: typing.Any, out: typing.Any) -> typing.Any: ...
def leaky_relu_backward(
    grad_output: typing.Any,
    input: typing.Any,
    alpha: typing.Any,
    output: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def linear(
    input: typing.Any,
    weight: typing.Any,
    bias: typing.Any,
    activation: typing.Any,
    activation_args: typing.Any,
    save_preactivation: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def linear_backward(
    grad_output: typing.Any,
    input: typing.Any,
    weight: typing.Any,
    bias: typing.Any,
    activation: typing.Any,
    activation_args: typing.Any,
    output: typing.Any,
    preactivation: typing.Any,
    wrt: typing.Any,
    accumulate: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def log_softmax(input: typing.Any, dim: typing.Any, out: typing.Any) -> typing.Any: ...
def log_softmax_backward(
    grad_output: typing.Any,
    input: typing.Any,
    dim: typing.Any,
    output: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def margin_ranking_loss(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def margin_ranking_loss_backward(
    grad_output: typing.Any,
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def margin_ranking_loss_value_and_grad(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
) -> tuple[typing.Any, typing.Any]: ...
def matmul(
    a: typing.Any,
    b: typing.Any,
    transpose_a: typing.Any,
    transpose_b: typing.Any,
    variant: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def matmul_backward(
    grad_output: typing.Any,
    a: typing.Any,
    b: typing.Any,
    transpose_a: typing.Any,
    transpose_b: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def mish(input: typing.Any, out: typing.Any) -> typing.Any: ...
def mish_backward(
    grad_output: typing.Any, input: typing.Any, output: typing.Any, wrt: typing.Any, out: typing.Any
) -> typing.Any: ...
def mse_loss(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def mse_loss_backward(
    grad_output: typing.Any,
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def mse_loss_value_and_grad(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
) -> tuple[typing.Any, typing.Any]: ...
def multi_margin_loss(
    input: typing.Any,
    target: typing.Any,
    p: typing.Any,
    margin: typing.Any,
    weight: typing.Any,
    reduction: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def multi_margin_loss_backward(
    grad_output: typing.Any,
    input: typing.Any,
    target: typing.Any,
    p: typing.Any,
    margin: typing.Any,
    weight: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def multi_margin_loss_value_and_grad(
    input: typing.Any,
    target: typing.Any,
    p: typing.Any,
    margin: typing.Any,
    weight: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
) -> tuple[typing.Any, typing.Any]: ...
def multilabel_margin_loss(
    input: typing.Any, target: typing.Any, reduction: typing.Any, out: typing.Any
) -> typing.Any: ...
def multilabel_margin_loss_backward(
    grad_output: typing.Any,
    input: typing.Any,
    target: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def multilabel_margin_loss_value_and_grad(
    input: typing.Any, target: typing.Any, reduction: typing.Any, wrt: typing.Any
) -> tuple[typing.Any, typing.Any]: ...
def multilabel_soft_margin_loss(
    input: typing.Any,
    target: typing.Any,
    weight: typing.Any,
    reduction: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def multilabel_soft_margin_loss_backward(
    grad_output: typing.Any,
    input: typing.Any,
    target: typing.Any,
    weight: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def multilabel_soft_margin_loss_value_and_grad(
    input: typing.Any,
    target: typing.Any,
    weight: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
) -> tuple[typing.Any, typing.Any]: ...
def nll_loss(
    input: typing.Any,
    target: typing.Any,
    weight: typing.Any,
    ignore_index: typing.Any,
    reduction: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def nll_loss_backward(
    grad_output: typing.Any,
    input: typing.Any,
    target: typing.Any,
    weight: typing.Any,
    ignore_index: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def nll_loss_value_and_grad(
    input: typing.Any,
    target: typing.Any,
    weight: typing.Any,
    ignore_index: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
) -> tuple[typing.Any, typing.Any]: ...
def num_threads() -> int: ...
def poisson_nll_loss(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def poisson_nll_loss_backward(
    grad_output: typing.Any,
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def poisson_nll_loss_value_and_grad(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
) -> tuple[typing.Any, typing.Any]: ...
def prelu(input: typing.Any, weight: typing.Any, out: typing.Any) -> typing.Any: ...
def prelu_backward(
    grad_output: typing.Any,
    input: typing.Any,
    weight: typing.Any,
    wrt: typing.Any,
    accumulate: bool,
    out: typing.Any,
) -> typing.Any: ...
def random_normal(
    shape: typing.Any,
    is_double: bool,
    mean: typing.SupportsFloat | typing.SupportsIndex,
    std: typing.SupportsFloat | typing.SupportsIndex,
    seed: typing.SupportsInt | typing.SupportsIndex,
    offset: typing.SupportsInt | typing.SupportsIndex,
) -> typing.Any: ...
def random_uniform(
    shape: typing.Any,
    is_double: bool,
    low: typing.SupportsFloat | typing.SupportsIndex,
    high: typing.SupportsFloat | typing.SupportsIndex,
    seed: typing.SupportsInt | typing.SupportsIndex,
    offset: typing.SupportsInt | typing.SupportsIndex,
) -> typing.Any: ...
def release_memory() -> int: ...
def relu(input: typing.Any, out: typing.Any) -> typing.Any: ...
def relu6(input: typing.Any, out: typing.Any) -> typing.Any: ...
def relu6_backward(
    grad_output: typing.Any, input: typing.Any, output: typing.Any, wrt: typing.Any, out: typing.Any
) -> typing.Any: ...
def relu_backward(
    grad_output: typing.Any, input: typing.Any, output: typing.Any, wrt: typing.Any, out: typing.Any
) -> typing.Any: ...
def rmsprop_step(
    params: typing.Any,
    grads: typing.Any,
    squares: typing.Any,
    momentum_buffers: typing.Any,
    means: typing.Any,
    alpha: typing.SupportsFloat | typing.SupportsIndex,
    eps: typing.SupportsFloat | typing.SupportsIndex,
    momentum: typing.SupportsFloat | typing.SupportsIndex,
    weight_decay: typing.SupportsFloat | typing.SupportsIndex,
    l1_decay: typing.SupportsFloat | typing.SupportsIndex,
    maximize: bool,
    state: StepState,
    rounded: typing.Any = None,
) -> None: ...
def scale(grads: typing.Any, state: StepState) -> None: ...
def selu(input: typing.Any, out: typing.Any) -> typing.Any: ...
def selu_backward(
    grad_output: typing.Any, input: typing.Any, output: typing.Any, wrt: typing.Any, out: typing.Any
) -> typing.Any: ...
def set_num_threads(count: typing.Any) -> None: ...
def sgd_step(
    params: typing.Any,
    grads: typing.Any,
    momentum_buffers: typing.Any,
    momentum: typing.SupportsFloat | typing.SupportsIndex,
    dampening: typing.SupportsFloat | typing.SupportsIndex,
    nesterov: bool,
    weight_decay: typing.SupportsFloat | typing.SupportsIndex,
    l1_decay: typing.SupportsFloat | typing.SupportsIndex,
    maximize: bool,
    state: StepState,
    rounded: typing.Any = None,
) -> None: ...
def sigmoid(input: typing.Any, out: typing.Any) -> typing.Any: ...
def sigmoid_backward(
    grad_output: typing.Any, input: typing.Any, output: typing.Any, wrt: typing.Any, out: typing.Any
) -> typing.Any: ...
def silu(input: typing.Any, out: typing.Any) -> typing.Any: ...
def silu_backward(
    grad_output: typing.Any, input: typing.Any, output: typing.Any, wrt: typing.Any, out: typing.Any
) -> typing.Any: ...
def smooth_l1_loss(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def smooth_l1_loss_backward(
    grad_output: typing.Any,
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def smooth_l1_loss_value_and_grad(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
) -> tuple[typing.Any, typing.Any]: ...
def soft_margin_loss(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def soft_margin_loss_backward(
    grad_output: typing.Any,
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def soft_margin_loss_value_and_grad(
    a: typing.Any,
    b: typing.Any,
    c: typing.Any,
    weight: typing.Any,
    number: typing.Any,
    logarithm: typing.Any,
    full: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
) -> tuple[typing.Any, typing.Any]: ...
def softmax(input: typing.Any, dim: typing.Any, out: typing.Any) -> typing.Any: ...
def softmax_backward(
    grad_output: typing.Any,
    input: typing.Any,
    dim: typing.Any,
    output: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def softplus(
    input: typing.Any, alpha: typing.Any, beta: typing.Any, out: typing.Any
) -> typing.Any: ...
def softplus_backward(
    grad_output: typing.Any,
    input: typing.Any,
    alpha: typing.Any,
    beta: typing.Any,
    output: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def supported_isas() -> list[str]: ...
def tanh(input: typing.Any, out: typing.Any) -> typing.Any: ...
def tanh_backward(
    grad_output: typing.Any, input: typing.Any, output: typing.Any, wrt: typing.Any, out: typing.Any
) -> typing.Any: ...
def triplet_margin_loss(
    anchor: typing.Any,
    positive: typing.Any,
    negative: typing.Any,
    margin: typing.Any,
    p: typing.Any,
    eps: typing.Any,
    swap: typing.Any,
    reduction: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def triplet_margin_loss_backward(
    grad_output: typing.Any,
    anchor: typing.Any,
    positive: typing.Any,
    negative: typing.Any,
    margin: typing.Any,
    p: typing.Any,
    eps: typing.Any,
    swap: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
    out: typing.Any,
) -> typing.Any: ...
def triplet_margin_loss_value_and_grad(
    anchor: typing.Any,
    positive: typing.Any,
    negative: typing.Any,
    margin: typing.Any,
    p: typing.Any,
    eps: typing.Any,
    swap: typing.Any,
    reduction: typing.Any,
    wrt: typing.Any,
) -> tuple[typing.Any, typing.Any]: ...
