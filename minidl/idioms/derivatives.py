"""torch.autograd's derivatives of functions of tensors, and its check of them: `functional`, `gradcheck`, `gradgradcheck`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import minidl as md

__all__ = ["Variable", "functional", "gradcheck", "gradgradcheck"]


def Variable(data: Any, requires_grad: bool = False) -> md.Tensor:
    """data.detach(), which may require grad: PyTorch's name from when tensors had no derivatives.

    >>> md.autograd.Variable(md.ones(2), requires_grad=True).requires_grad
    True
    """
    return data.detach().requires_grad_(requires_grad)


class functional:
    """torch.autograd.functional: derivatives of a function of tensors at its inputs, by md's transforms.

    create_graph: the results are differentiable in the inputs; without it they are values. vectorize, strategy and their like choose how PyTorch
    computes; they are accepted and change nothing, and strict=True (errors where an output does not depend on an input) is not there.
    """

    @staticmethod
    def _at(inputs: Any, create_graph: bool, strict: bool) -> tuple[md.Tensor, ...]:
        if strict:
            raise NotImplementedError("autograd.functional: strict=True is not there; what does not depend on an input has a derivative of 0")
        return tuple(x if create_graph else x.detach() for x in (inputs if isinstance(inputs, tuple) else (inputs,)))

    @staticmethod
    def _out(found: Any, create_graph: bool) -> Any:
        return found if create_graph else md.tree.map(md.stop_gradient, found)

    @staticmethod
    def _number(name: str, func: Callable[..., Any]) -> Callable[..., md.Tensor]:
        """func, whose result is one element, of any number of axes."""

        def number(*xs: md.Tensor) -> md.Tensor:
            out = func(*xs)
            if not isinstance(out, md.Tensor) or out.size != 1:
                raise RuntimeError(f"autograd.functional.{name}: the function gives one element, not {md.extend.describe(out)}")
            return out.reshape(())

        return number

    @staticmethod
    def _of(transform: Any, func: Callable[..., Any], inputs: Any, create_graph: bool, strict: bool) -> Any:
        given = functional._at(inputs, create_graph, strict)
        return functional._out(transform(func, argnums=tuple(range(len(given))) if isinstance(inputs, tuple) else 0)(*given), create_graph)

    @staticmethod
    def jacobian(
        func: Callable[..., Any], inputs: Any, create_graph: bool = False, strict: bool = False, vectorize: bool = False,
        strategy: str = "reverse-mode",
    ) -> Any:  # fmt: skip
        """The Jacobian at the inputs (a tensor, or a tuple of them): md.jacrev, or with strategy "forward-mode" md.jacfwd.

        >>> md.autograd.functional.jacobian(lambda x: x * x, md.tensor([1.0, 2.0])).tolist()
        [[2.0, 0.0], [0.0, 4.0]]
        """
        return functional._of(md.jacfwd if strategy == "forward-mode" else md.jacrev, func, inputs, create_graph, strict)

    @staticmethod
    def hessian(
        func: Callable[..., Any], inputs: Any, create_graph: bool = False, strict: bool = False, vectorize: bool = False,
        outer_jacobian_strategy: str = "reverse-mode",
    ) -> Any:  # fmt: skip
        """The Hessian of a function of one element at the inputs: md.hessian. Raises RuntimeError for another result."""
        return functional._of(md.hessian, functional._number("hessian", func), inputs, create_graph, strict)

    @staticmethod
    def vjp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
        """(func(inputs), the gradient of its product with v). Raises RuntimeError without a v where there is more than one element."""
        out, pull = md.vjp(func, *functional._at(inputs, create_graph, strict))
        if v is None and (not isinstance(out, md.Tensor) or out.size != 1):
            raise RuntimeError("autograd.functional.vjp: v can be left out for a function that gives one element alone")
        found = pull(md.ones_like(out) if v is None else v)
        return functional._out((out, found if isinstance(inputs, tuple) else found[0]), create_graph)

    @staticmethod
    def jvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
        """(func(inputs), its derivative in the direction v)."""
        primals = functional._at(inputs, create_graph, strict)
        return functional._out(md.jvp(func, primals, functional._along(primals, v)), create_graph)

    @staticmethod
    def hvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> tuple[Any, Any]:
        """(func(inputs), its Hessian times v), for a func that gives a number.

        >>> md.autograd.functional.hvp(lambda x: (x**3).sum(), md.tensor([1.0, 2.0]), md.ones(2))[1].tolist()
        [6.0, 12.0]
        """
        primals = functional._at(inputs, create_graph, strict)
        (value, _), (_, moved) = md.jvp(md.value_and_grad(func, tuple(range(len(primals)))), primals, functional._along(primals, v))
        return functional._out((value, moved if isinstance(inputs, tuple) else moved[0]), create_graph)

    @staticmethod
    def _along(primals: tuple[md.Tensor, ...], v: Any) -> tuple[md.Tensor, ...]:
        if v is None and any(x.size != 1 for x in primals):
            raise RuntimeError("autograd.functional: v, the direction, can be left out for inputs of one element alone")
        return tuple(md.ones_like(x) for x in primals) if v is None else v if isinstance(v, tuple) else (v,)

    vhp = hvp


def _rows(x: md.Tensor, eps: float) -> Iterator[md.Tensor]:
    """x with eps added to one element after the other."""
    values = x.numpy().copy()
    for i in range(values.size):
        kept = values.flat[i]
        values.flat[i] = kept + eps
        yield md.tensor(values, backend=x.backend, device=x.device)
        values.flat[i] = kept


def gradcheck(
    func: Callable[..., Any], inputs: Any, *, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3, raise_exception: bool = True,
    nondet_tol: float = 0.0, check_undefined_grad: bool = True, check_grad_dtypes: bool = False, check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False, check_forward_ad: bool = False, check_backward_ad: bool = True, fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:  # fmt: skip
    """True where the Jacobians of func in those float64 inputs that require grad are what differences of step eps say; element by element.

    Raises RuntimeError with the numbers where they are not (or returns False, without raise_exception), ValueError where no input requires grad, and
    TypeError for complex inputs, which md.testing.check_grad takes. The other options are accepted and change nothing; md.testing.check_grad
    looks at every mode and at second derivatives.

    >>> md.autograd.gradcheck(md.sin, md.tensor([1.0, 2.0], dtype=md.float64, requires_grad=True))
    True
    """
    given = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    tracked = [i for i, x in enumerate(given) if isinstance(x, md.Tensor) and x.requires_grad]
    if not tracked:
        raise ValueError("gradcheck: at least one input that requires grad is wanted")
    if any(given[i].dtype.is_complex for i in tracked):
        raise TypeError("gradcheck: real inputs are wanted; md.testing.check_grad takes complex ones")
    n_out = 0
    for i in tracked:

        def at(x: md.Tensor, i: int = i) -> list[md.Tensor]:
            outs = func(*given[:i], x, *given[i + 1 :])
            parts = [(md.real(o), md.imag(o)) if o.dtype.is_complex else (o,) for o in (outs if isinstance(outs, (tuple, list)) else (outs,))]
            return [p for part in parts for p in part if p.dtype.is_float]

        start = given[i].detach()
        n_out = len(at(start))
        for k in range(n_out):
            with md.no_grad():
                pairs = zip(_rows(start, eps), _rows(start, -eps), strict=True)
                moved = [(at(above)[k] - at(below)[k]).detach().numpy().reshape(-1) / (2 * eps) for above, below in pairs]
            wanted = np.stack(moved, axis=-1) if moved else np.zeros((at(start)[k].numel(), 0))
            x = start.clone().requires_grad_()
            out = at(x)[k].reshape(-1)
            rows = [md.autograd.grad(o, x, retain_graph=True, allow_unused=True)[0] if o.requires_grad else None for o in out]
            found = np.stack([np.zeros(start.shape) if g is None else g.numpy() for g in rows]).reshape(wanted.shape) if rows else wanted
            if not np.allclose(found, wanted, rtol, atol):
                if not raise_exception:
                    return False
                raise RuntimeError(f"gradcheck: the Jacobian of output {k} in input {i} is\n{found}\nand differences say\n{wanted}")
    return True


def gradgradcheck(
    func: Callable[..., Any], inputs: Any, grad_outputs: Any = None, *, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False, raise_exception: bool = True, nondet_tol: float = 0.0, check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False, check_batched_grad: bool = False, check_fwd_over_rev: bool = False, check_rev_over_rev: bool = True,
    fast_mode: bool = False, masked: bool = False,
) -> bool:  # fmt: skip
    """gradcheck of the gradients of func, weighted with grad_outputs (drawn, where there are none).

    >>> md.autograd.gradgradcheck(md.exp, md.tensor([1.0, 2.0], dtype=md.float64, requires_grad=True))
    True
    """
    given = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    several = lambda v: tuple(v) if isinstance(v, (tuple, list)) else (v,)
    outs = several(func(*given))
    weights = several(grad_outputs) if grad_outputs is not None else tuple(md.randn_like(o.detach()) if o.dtype.inexact else None for o in outs)

    def gradients(*xs: Any) -> tuple[Any, ...]:
        with md.enable_grad():
            xs = tuple(
                x.detach().requires_grad_() if isinstance(x, md.Tensor) and g.requires_grad and not x.requires_grad else x
                for x, g in zip(xs, given, strict=True)
            )
            wanted = [x for x in xs if isinstance(x, md.Tensor) and x.requires_grad]
            pairs = [(o, w) for o, w in zip(several(func(*xs)), weights, strict=True) if o.requires_grad]
            found = md.autograd.grad([o for o, _ in pairs], wanted, [w for _, w in pairs], create_graph=True, allow_unused=True)
            return tuple(md.zeros_like(x) if g is None else g for x, g in zip(wanted, found, strict=True))

    return gradcheck(gradients, inputs, eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception)
