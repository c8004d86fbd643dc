"""numba: loops and branches as kernels that run the programs of their bodies, without the interpreter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl.backends.numba_kernels import BROUGHT, execute, memory, resolve
from minidl.backends.numba_linear import MULTIPLIED
from minidl.backends.numba_lower import index_of, move, source
from minidl.backends.numba_machine import as_ptr, jit
from minidl.backends.numba_shared import copy_bytes
from minidl.control.on_numba_rows import fewer, transposed
from minidl.graph import Equation, Graph

BROUGHT.update(dict.fromkeys(("run_scan", "run_while", "run_cond"), __name__))


# ---- kernels ------------------------------------------------------------------------------------------------------------------------------
@jit
def frame(header):
    """Scratch memory, bases and arguments for one program that runs inside another."""
    block, address = memory(header[7])
    bases, args = np.empty(header[6] + 1, np.int64), np.empty(header[3] + 1, np.int64)
    bases[0] = address
    return block, bases, args


@jit
def step(header, bases, args):
    resolve(header, as_ptr(bases.ctypes.data, np.int64), as_ptr(args.ctypes.data, np.int64))
    execute(header, args.ctypes.data)


@jit
def alive(block, bases, args):
    """Keeps a frame from being freed before its last step."""
    args[-1] = bases[-1] + block[0]


@jit
def taken(a, sizes, count):
    """The bytes of so many values one behind the other, each at a multiple of 64."""
    total = 0
    for i in range(count):
        total += (a[sizes + i] + 63) // 64 * 64
    return total


@jit
def copied(places, first, a, sizes, count, block, out):
    """Copies values between addresses and a block (from number `first` on) where they lie one behind the other: out of the block, or into it."""
    at = 0
    for i in range(count):
        if out:
            copy_bytes(places[first + i], block + at, a[sizes + i])
        else:
            copy_bytes(block + at, places[first + i], a[sizes + i])
        at += (a[sizes + i] + 63) // 64 * 64


@jit
def run_scan(a):
    """a: body, length, reverse, n_consts, n_carry, n_xs, n_ys; addresses of consts, carry, xs, results; two numbers, and the part of the rows to do;
    for each const and each carry the bytes from part to part, of an x and of a y; bytes of carry in a part, from x to x, from y to y."""
    header, n, consts, carry, xs, ys = as_ptr(a[0], np.int64), a[1], a[3], a[4], a[5], a[6]
    inputs = consts + carry + xs
    count = inputs + carry + ys
    part, apart = a[9 + count], 10 + count
    sizes, places = apart + count, np.empty(count + 1, np.int64)
    for i in range(count):
        places[i] = a[7 + i] + part * a[apart + i]
    block, bases, args = frame(header)
    total = taken(a, sizes, carry)
    spare, now = memory(2 * total)
    after = now + total
    copied(places, consts, a, sizes, carry, now, False)
    for i in range(consts):
        bases[1 + i] = places[i]
    for t in range(n):
        k = n - 1 - t if a[2] else t
        at = 0
        for i in range(carry):
            bases[1 + consts + i] = now + at
            bases[1 + inputs + i] = after + at
            at += (a[sizes + i] + 63) // 64 * 64
        for i in range(xs):
            bases[1 + consts + carry + i] = places[consts + carry + i] + k * a[sizes + carry + i]
        for i in range(ys):
            bases[1 + inputs + carry + i] = places[inputs + carry + i] + k * a[sizes + carry + xs + i]
        step(header, bases, args)
        now, after = after, now
    copied(places, inputs, a, sizes, carry, now, True)
    alive(block, bases, args)
    alive(spare, bases, args)
    places[count] = bases[0]


@jit
def run_while(a):
    """a: cond, body, n_cond, n_body, n_carry; addresses of cond consts, body consts, carry, results; bytes of each carry."""
    test, header, n_cond, n_body, carry = as_ptr(a[0], np.int64), as_ptr(a[1], np.int64), a[2], a[3], a[4]
    first, out = 5 + n_cond + n_body, 5 + n_cond + n_body + carry
    sizes = out + carry
    block, bases, args = frame(header)
    test_block, test_bases, test_args = frame(test)
    total = taken(a, sizes, carry)
    spare, now = memory(2 * total + 64)
    after, flag = now + total, now + 2 * total
    copied(a, first, a, sizes, carry, now, False)
    for i in range(n_cond):
        test_bases[1 + i] = a[5 + i]
    for i in range(n_body):
        bases[1 + i] = a[5 + n_cond + i]
    test_bases[1 + n_cond + carry] = flag
    while True:
        at = 0
        for i in range(carry):
            test_bases[1 + n_cond + i] = bases[1 + n_body + i] = now + at
            bases[1 + n_body + carry + i] = after + at
            at += (a[sizes + i] + 63) // 64 * 64
        step(test, test_bases, test_args)
        if not as_ptr(flag, np.uint8)[0]:
            break
        step(header, bases, args)
        now, after = after, now
    copied(a, out, a, sizes, carry, now, True)
    alive(block, bases, args)
    alive(test_block, test_bases, test_args)
    alive(spare, bases, args)


@jit
def run_cond(a):
    """a: address of the index, number of branches, number of addresses; the branches; the addresses of operands and results."""
    i = min(max(as_ptr(a[0], np.int64)[0], 0), a[1] - 1)
    header = as_ptr(a[3 + i], np.int64)
    block, bases, args = frame(header)
    for j in range(a[2]):
        bases[1 + j] = a[3 + a[1] + j]
    step(header, bases, args)
    alive(block, bases, args)


# ---- lowerings ----------------------------------------------------------------------------------------------------------------------------
def _bytes(v: Any) -> int:
    return math.prod(v.shape) * v.dtype.itemsize


_ELEMENT = 0.5  # nanoseconds of an element in a loop
_LEAST, _OFTEN = 4, 4  # rows that are worth a thread of their own, and steps that are worth a transpose


def _duration(body: Graph) -> float:
    """Nanoseconds that a step takes, about."""
    products = (math.prod(e.inputs[0].shape[i] for i in e.params["contract"][0]) if e.primitive.name == "dot_general" else 0 for e in body.equations)
    return sum(math.prod(v.shape) * (MULTIPLIED * k or _ELEMENT) for e, k in zip(body.equations, products, strict=True) for v in e.outputs)


def scan(plan: Any, e: Equation) -> None:
    """A loop. One whose rows are apart is several where there are several threads, each through all steps: nobody waits for the others in between."""
    p, body, consts, carry = e.params, e.params["body"], e.params["n_consts"], e.params["n_carry"]
    operands, outs = [plan.at(a) for a in e.inputs], [plan.out(v) for v in e.outputs]
    if p["length"] >= _OFTEN:
        body, turned = transposed(body, consts)
        for i, v in enumerate(body.inputs[:consts]):
            if turned[i]:
                x, operands[i] = operands[i], plan.temp(v.nbytes)
                move(plan, x, operands[i], v.dtype, v.shape, (1, v.shape[0]), (v.shape[1], 1))
    most = plan.lanes(_duration(body) * p["length"], plan.threads)
    found = ((n, divided) for n in range(most, 1, -1) if (divided := fewer(body, consts, carry, n, _LEAST)))
    parts, (part, *rows) = next(found, (1, (body, [False] * len(body.inputs), [False] * len(body.outputs))))
    whole = [*body.inputs, *body.outputs]
    apart = [_bytes(v) // parts if on else 0 for v, on in zip(whole, [*rows[0], *rows[1]], strict=True)]
    sizes = [*map(_bytes, part.outputs[:carry]), *map(_bytes, (*body.inputs[consts + carry :], *body.outputs[carry:]))]
    xs, ys = len(body.inputs) - consts - carry, len(body.outputs) - carry
    head = plan.nested(part, parts == 1), p["length"], int(p["reverse"]), consts, carry, xs, ys
    plan.divide(source("run_scan(a)"), parts, [*head, *operands, *outs], parts, *apart, *sizes)


def while_loop(plan: Any, e: Equation) -> None:
    p = e.params
    operands = [plan.at(a) for a in e.inputs]
    outs = [plan.out(v) for v in e.outputs]
    headers = plan.nested(p["cond"]), plan.nested(p["body"])
    plan.call(source("run_while(a)"), *headers, p["n_cond"], p["n_body"], len(outs), *operands, *outs, *(_bytes(v) for v in e.outputs))


def cond(plan: Any, e: Equation) -> None:
    headers = [plan.nested(g) for g in e.params["branches"]]
    places = [plan.at(a) for a in e.inputs[1:]] + [plan.out(v) for v in e.outputs]
    plan.call(source("run_cond(a)"), index_of(plan, e.inputs[0]), len(headers), len(places), *headers, *places)
