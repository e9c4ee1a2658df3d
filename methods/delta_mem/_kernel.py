"""The gated delta rule compiled for CPUs with numba: a pass forward, and an exact reverse scan.

A row of S is a delta rule of its own (paper eq. 12), so rows lie in the lanes of vector registers: eight rows of a
state are r vectors, one a key dimension, and a token needs no sum across lanes. With r = 8 known to the compiler all
of S stays in registers from the first token to the last.

Functions take no arrays but ``x``, a table of int64 with a row a tensor: its address, then its strides in elements
along batch, heads and tokens (a state has no tokens; its r × r entries are contiguous). So any view is read in place
and a call costs microseconds. ``one`` is 1 in the dtype of every tensor; ``first`` to ``last`` are the pairs of batch
row and head to be done. Importing this module compiles nothing: a function compiles when it is first called, and is
kept on disk where there is a place for it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 8


# --- eight numbers as one value ---


class Vector(types.Type):
    """LANES numbers of one dtype. ``+ - *`` work on vectors, and on a vector and a number."""

    def __init__(self, dtype: types.Type) -> None:
        self.dtype = dtype
        super().__init__(f"Vector({dtype})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, ir.VectorType(manager.lookup(vector.dtype).get_value_type(), LANES))


def _int32(value: Any, count: int = 0) -> Any:
    return ir.Constant(ir.VectorType(ir.IntType(32), count) if count else ir.IntType(32), value)


def _spread(builder: Any, x: Any) -> Any:
    """A number in every lane; a vector as it is."""
    if isinstance(x.type, ir.VectorType):
        return x
    first = builder.insert_element(ir.Constant(ir.VectorType(x.type, LANES), ir.Undefined), x, _int32(0))
    return builder.shuffle_vector(first, first, _int32([0] * LANES, LANES))


def _lanewise(operation: Callable[..., Any], instruction: str) -> None:
    """Give vectors an operator."""

    class Typed(AbstractTemplate):
        def generic(self, args: Any, _: Any) -> Any:
            return next((x(*args) for x in args if isinstance(x, Vector)), None)

    def lowered(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        # a product may fuse with a sum; nothing else of fast mathematics
        return getattr(builder, instruction)(*(_spread(builder, x) for x in args), flags=("contract",))

    infer_global(operation)(Typed)
    for operands in ((Vector, Vector), (Vector, types.Float), (types.Float, Vector)):
        lower_builtin(operation, *operands)(lowered)


for _operation, _instruction in (("add", "fadd"), ("iadd", "fadd"), ("sub", "fsub"), ("mul", "fmul")):
    _lanewise(getattr(operator, _operation), _instruction)


@intrinsic
def _vector(_typing: Any, number: Any) -> Any:
    """A number in every lane."""
    return Vector(number)(number), lambda _context, builder, _signature, args: _spread(builder, args[0])


@intrinsic
def _total(_typing: Any, vector: Any) -> Any:
    """The sum of the lanes."""

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        number = context.get_value_type(vector.dtype)
        zero = ir.Constant(number, 0.0)
        return _call(builder, "vector.reduce.fadd", args[0].type, "", number, [zero, args[0]], fastmath=("reassoc",))

    return vector.dtype(vector), generate


@intrinsic
def _exp(_typing: Any, vector: Any) -> Any:
    """e^x to rounding, for x up to 88; 0 below the smallest normal number, so that -inf is well too.

    x = n log 2 + y with |y| ≤ log 2 / 2: a Taylor sum gives e^y, and n goes to the exponent's bits. Adding 1.5 · 2^m,
    m the bits of a mantissa, rounds to a whole number and leaves n in the lowest bits.
    """
    double = vector.dtype == types.float64
    mantissa, bias, lowest, degree = (52, 1023, -708.0, 13) if double else (23, 127, -87.0, 7)
    high, low = (0.693147180369123816490, 1.90821492927058770002e-10) if double else (0.693359375, -2.12194440e-4)

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        x, of = args[0], args[0].type
        bits = ir.VectorType(ir.IntType(64 if double else 32), LANES)
        every = lambda number, kind=of: ir.Constant(kind, [number] * LANES)  # noqa: E731
        times_plus = lambda a, b, c: builder.fadd(  # noqa: E731
            builder.fmul(a, b, flags=("contract",)), c, flags=("contract",)
        )
        whole = every(1.5 * 2.0**mantissa)
        shifted = times_plus(x, every(1 / math.log(2)), whole)
        n = builder.fsub(shifted, whole)
        y = times_plus(n, every(-low), times_plus(n, every(-high), x))
        total = every(1 / math.factorial(degree))
        for k in range(degree - 1, -1, -1):
            total = times_plus(total, y, every(1 / math.factorial(k)))
        power = builder.shl(builder.add(builder.bitcast(shifted, bits), every(bias, bits)), every(mantissa, bits))
        result = builder.fmul(total, builder.bitcast(power, of))
        return builder.select(builder.fcmp_ordered("<", x, every(lowest)), every(0.0), result)

    return vector(vector), generate


@intrinsic
def _pointer(_typing: Any, address: Any, offset: Any, one: Any) -> Any:
    """The element ``offset`` beyond an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        start = builder.inttoptr(args[0], context.get_value_type(signature.return_type))
        return builder.gep(start, [args[1]], source_etype=context.get_value_type(one))

    return types.CPointer(one)(address, offset, one), generate


@intrinsic
def _shift(_typing: Any, pointer: Any, offset: Any) -> Any:
    """The element ``offset`` beyond another."""

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]], source_etype=context.get_value_type(pointer.dtype))

    return pointer(pointer, offset), generate


@intrinsic
def _scratch(_typing: Any, size: Any, one: Any) -> Any:
    """Room for ``size`` elements on the stack, or in registers where the compiler knows a size that fits."""

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        room = builder.alloca(context.get_value_type(one), size=args[0])
        room.align = 64
        return room

    return types.CPointer(one)(size, one), generate


def _lanes(context: Any, builder: Any, pointer: Any, at: Any, rows: Any, dtype: Any) -> tuple[Any, ...]:
    """The address of lane 0, its alignment, and which lanes are below ``rows``."""
    number = context.get_value_type(dtype)
    used = _spread(builder, builder.trunc(rows, ir.IntType(32)))
    address = builder.gep(pointer, [at], source_etype=number)
    return (
        address,
        _int32(context.get_abi_sizeof(number)),
        builder.icmp_signed("<", _int32([*range(LANES)], LANES), used),
    )


def _call(builder: Any, name: str, of: Any, suffix: str, result: Any, args: Sequence[Any], **options: Any) -> Any:
    """LLVM's own function ``name`` for vectors of the type ``of``."""
    name = f"llvm.{name}.v{LANES}{of.element.intrinsic_name}{suffix}"
    function = builder.module.declare_intrinsic(name, fnty=ir.FunctionType(result, [x.type for x in args]))
    return builder.call(function, args, **options)


@intrinsic
def _load(_typing: Any, pointer: Any, at: Any, rows: Any) -> Any:
    """Elements from ``at``, the first ``rows`` of LANES; zero in the other lanes, which are not touched."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address, alignment, used = _lanes(context, builder, *args, pointer.dtype)
        vector = context.get_value_type(signature.return_type)
        zero = ir.Constant(vector, None)
        return _call(builder, "masked.load", vector, ".p0", vector, [address, alignment, used, zero])

    return Vector(pointer.dtype)(pointer, at, rows), generate


@intrinsic
def _store(_typing: Any, pointer: Any, at: Any, rows: Any, vector: Any) -> Any:
    """The first ``rows`` lanes to the elements from ``at``."""

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        address, alignment, used = _lanes(context, builder, *args[:3], pointer.dtype)
        _call(builder, "masked.store", args[3].type, ".p0", ir.VoidType(), [args[3], address, alignment, used])
        return context.get_dummy_value()

    return types.void(pointer, at, rows, vector), generate


# --- the recurrence ---


def _compiled(function: Callable[..., Any]) -> Any:
    """Compiled when first called, without the interpreter's lock; kept on disk unless no folder can be written."""
    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # numba found no place for its cache
        return numba.njit(nogil=True, error_model="numpy")(function)


_inline = numba.njit(inline="always")


@_inline
def _tensor(x, m, b, n, one):
    """Tensor ``m`` of the table from batch row b and head n on."""
    return _pointer(x[m, 0], b * x[m, 1] + n * x[m, 2], one)


@_inline
def _gate(gate, at, row, rows, wide):
    return _load(gate, at + row, rows) if wide else _vector(gate[at])


@_inline
def _product(S, at, z, z_at, r):
    """S z for the rows in the lanes; S from ``at``. Two sums, as one would wait for itself."""
    even, odd = _load(S, at, LANES) * z[z_at], _load(S, at, LANES) * (z[z_at] - z[z_at])
    for j in range(1, r, 2):
        odd += _load(S, at + j * LANES, LANES) * z[z_at + j]
        if j + 1 < r:
            even += _load(S, at + (j + 1) * LANES, LANES) * z[z_at + j + 1]
    return even + odd


@_inline
def _gather(rows_of, S, row, rows, r, zero):
    """Rows of an r × r matrix into lanes."""
    for j in range(r):
        _store(S, j * LANES, LANES, _vector(zero))
        for i in range(rows):
            S[j * LANES + i] = rows_of[(row + i) * r + j]


@_inline
def _scatter(S, rows_of, row, rows, r):
    """Lanes into rows of an r × r matrix."""
    for j in range(r):
        for i in range(rows):
            rows_of[(row + i) * r + j] = S[j * LANES + i]


@_inline
def _copy(source, source_at, target, target_at, r):
    for j in range(0, r * LANES, LANES):
        _store(target, target_at + j, LANES, _load(source, source_at + j, LANES))


@_inline
def _update(S, at, to, keep, value, k, k_at, r):
    """Diag(keep) S + value kᵀ for the rows in the lanes; from ``at``, written from ``to`` on."""
    for j in range(r):
        _store(S, to + j * LANES, LANES, value * k[k_at + j] + keep * _load(S, at + j * LANES, LANES))


@_inline
def _put(target, at, vector, row):
    """The sum of the lanes, over all rows of S."""
    target[at] = _total(vector) + target[at] if row else _total(vector)


@_inline
def _put_gate(target, at, row, rows, wide, vector):
    if wide:
        _store(target, at + row, rows, vector)
    else:
        _put(target, at, vector, row)


@_compiled
def forward(x, one, T, N, rank, wide, every, first, last):
    """Reads and the last state; where there is a place for them, the states before every ``every`` tokens.

    Rows of the table: q, k, v, log keep, erase, write, reads; state, last state, checkpoints (address 0: none).
    ``rank`` is None for LANES, which is then a constant.
    """
    r = LANES if rank is None else rank
    blocks = (r + LANES - 1) // LANES
    q_step, k_step, v_step, reads_step = x[0, 3], x[1, 3], x[2, 3], x[6, 3]
    keep_step, erase_step, write_step = x[3, 3], x[4, 3], x[5, 3]
    S = _scratch(r * LANES, one)
    for pair in range(first, last):
        b, n = pair // N, pair % N
        q, k, v = _tensor(x, 0, b, n, one), _tensor(x, 1, b, n, one), _tensor(x, 2, b, n, one)
        log_keep, erase, write = _tensor(x, 3, b, n, one), _tensor(x, 4, b, n, one), _tensor(x, 5, b, n, one)
        before, after, reads = _tensor(x, 7, b, n, one), _tensor(x, 8, b, n, one), _tensor(x, 6, b, n, one)
        saved = _tensor(x, 9, b, n, one)
        for row in range(0, r, LANES):
            rows = min(LANES, r - row)
            _gather(before, S, row, rows, r, one - one)
            for start in range(0, T, every):
                if x[9, 0] != 0:
                    _copy(S, 0, saved, (start // every * blocks + row // LANES) * r * LANES, r)
                for t in range(start, min(start + every, T)):
                    _store(reads, t * reads_step + row, rows, _product(S, 0, q, t * q_step, r))
                    predicted = _product(S, 0, k, t * k_step, r)
                    wanted = _gate(write, t * write_step, row, rows, wide) * _load(v, t * v_step + row, rows)
                    value = wanted - _gate(erase, t * erase_step, row, rows, wide) * predicted
                    _update(S, 0, 0, _exp(_gate(log_keep, t * keep_step, row, rows, wide)), value, k, t * k_step, r)
            _scatter(S, after, row, rows, r)


@_compiled
def backward(x, one, T, N, rank, wide, every, first, last):
    """Gradients, by a reverse scan: a stretch of ``every`` tokens is run anew from the state before it.

    Rows of the table: q, k, v, log keep, erase, write, gradient of reads, gradients of q, k, v, log keep, erase, write;
    gradient of the last state, checkpoints, gradient of the state. Gradients with address 0 are not wanted.
    """
    r = LANES if rank is None else rank
    blocks = (r + LANES - 1) // LANES
    size = r * LANES
    q_step, k_step, v_step, d_reads_step = x[0, 3], x[1, 3], x[2, 3], x[6, 3]
    keep_step, erase_step, write_step = x[3, 3], x[4, 3], x[5, 3]
    d_q_step, d_k_step, d_v_step = x[7, 3], x[8, 3], x[9, 3]
    d_keep_step, d_erase_step, d_write_step = x[10, 3], x[11, 3], x[12, 3]
    d_q_wanted, d_k_wanted, d_v_wanted = x[7, 0] != 0, x[8, 0] != 0, x[9, 0] != 0
    d_keep_wanted, d_erase_wanted, d_write_wanted = x[10, 0] != 0, x[11, 0] != 0, x[12, 0] != 0
    G, S, P = _scratch(size, one), _scratch(size * every, one), _scratch(LANES * every, one)
    for pair in range(first, last):
        b, n = pair // N, pair % N
        q, k, v = _tensor(x, 0, b, n, one), _tensor(x, 1, b, n, one), _tensor(x, 2, b, n, one)
        log_keep, erase, write = _tensor(x, 3, b, n, one), _tensor(x, 4, b, n, one), _tensor(x, 5, b, n, one)
        d_reads, d_after, saved = _tensor(x, 6, b, n, one), _tensor(x, 13, b, n, one), _tensor(x, 14, b, n, one)
        d_q, d_k, d_v = _tensor(x, 7, b, n, one), _tensor(x, 8, b, n, one), _tensor(x, 9, b, n, one)
        d_keep, d_erase, d_write = _tensor(x, 10, b, n, one), _tensor(x, 11, b, n, one), _tensor(x, 12, b, n, one)
        d_before = _tensor(x, 15, b, n, one)
        for row in range(0, r, LANES):
            rows = min(LANES, r - row)
            _gather(d_after, G, row, rows, r, one - one)
            for chunk in range((T + every - 1) // every - 1, -1, -1):
                start, stop = chunk * every, min(chunk * every + every, T)
                _copy(saved, (chunk * blocks + row // LANES) * size, S, 0, r)
                for t in range(start, stop):
                    at = (t - start) * size
                    predicted = _product(S, at, k, t * k_step, r)
                    _store(P, (t - start) * LANES, LANES, predicted)
                    if t + 1 < stop:
                        wanted = _gate(write, t * write_step, row, rows, wide) * _load(v, t * v_step + row, rows)
                        value = wanted - _gate(erase, t * erase_step, row, rows, wide) * predicted
                        _update(
                            S,
                            at,
                            at + size,
                            _exp(_gate(log_keep, t * keep_step, row, rows, wide)),
                            value,
                            k,
                            t * k_step,
                            r,
                        )
                for t in range(stop - 1, start - 1, -1):
                    at = (t - start) * size
                    kept = _exp(_gate(log_keep, t * keep_step, row, rows, wide))
                    erased = _gate(erase, t * erase_step, row, rows, wide)
                    written = _gate(write, t * write_step, row, rows, wide)
                    wanted, d_read = _load(v, t * v_step + row, rows), _load(d_reads, t * d_reads_step + row, rows)
                    predicted = _load(P, (t - start) * LANES, LANES)
                    value = written * wanted - erased * predicted
                    d_value = _product(G, 0, k, t * k_step, r)
                    d_predicted = erased * -one * d_value
                    d_kept = _vector(one - one)
                    for j in range(r):
                        s, g = _load(S, at + j * LANES, LANES), _load(G, j * LANES, LANES)
                        d_kept += g * s
                        if d_q_wanted:
                            _put(d_q, t * d_q_step + j, s * d_read, row)
                        if d_k_wanted:
                            _put(d_k, t * d_k_step + j, g * value + s * d_predicted, row)
                        g = g * kept + d_predicted * k[t * k_step + j] + d_read * q[t * q_step + j]
                        _store(G, j * LANES, LANES, g)
                    if d_v_wanted:
                        _store(d_v, t * d_v_step + row, rows, d_value * written)
                    if d_keep_wanted:
                        _put_gate(d_keep, t * d_keep_step, row, rows, wide, d_kept * kept)
                    if d_erase_wanted:
                        _put_gate(d_erase, t * d_erase_step, row, rows, wide, d_value * -one * predicted)
                    if d_write_wanted:
                        _put_gate(d_write, t * d_write_step, row, rows, wide, d_value * wanted)
            if x[15, 0] != 0:
                _scatter(G, d_before, row, rows, r)


# --- one memory without gradients: activations, reads and writes of a few tokens ---


@_inline
def _squash(z, at, into, r, normalise, one):
    """tanh and unit norm of r entries, or the entries as they are."""
    squares = one - one
    for j in range(r):
        into[j] = math.tanh(z[at + j]) if normalise else z[at + j]
        squares += into[j] * into[j]
    if normalise:
        norm = max(math.sqrt(squares), one * 1e-6)
        for j in range(r):
            into[j] = into[j] / norm


@_inline
def _gates(z, at, more, beta_bias, lambda_bias, keep, erase, write, r, wide, mode, one):
    """The gates of a head's rows; ``more`` entries further on stand those of λ, 0 where it is 1 - β."""
    for i in range(r):
        if i == 0 or wide:
            x = z[at + i] + beta_bias[i]
            write[i] = one / (one + math.exp(-x))
            y = z[at + more + i] + lambda_bias[i] if more else -x
            lam = one / (one + math.exp(-y))
            keep[i] = one if mode == 2 else lam
            erase[i] = lam * write[i] if mode == 1 else write[i]
        else:
            keep[i], erase[i], write[i] = keep[0], erase[0], write[0]


@_compiled
def attend(x, strides, one, B, T, N, rank, wide, coupled, normalise, mode, writes):
    """Reads of tokens from their packed projections, and the state after them.

    ``x`` holds addresses: packed [B, T, q k v beta (lambda)] without biases, validity [B, T] (0: all valid),
    beta bias, lambda bias, state, last state, reads [B, T, N r]; ``strides`` are those of packed along batch and
    tokens, all else is contiguous. ``mode`` counts standard, lambda_outside, no_lambda.
    """
    r = LANES if rank is None else rank
    blocks, R = (r + LANES - 1) // LANES, N * r
    G = R if wide else N
    S = _scratch(blocks * r * LANES, one)
    q, k, keep = _scratch(r, one), _scratch(r, one), _scratch(blocks * LANES, one)
    erase, write = _scratch(blocks * LANES, one), _scratch(blocks * LANES, one)
    valid = _pointer(x[1], 0, numba.uint8(1))
    for pair in range(B * N):
        b, n = pair // N, pair % N
        z, reads = _pointer(x[0], b * strides[0], one), _pointer(x[6], b * T * R + n * r, one)
        gate = n * r if wide else n
        beta_bias, lambda_bias = _pointer(x[2], gate, one), _pointer(x[3], gate, one)
        before, after = _pointer(x[4], pair * r * r, one), _pointer(x[5], pair * r * r, one)
        for block in range(blocks):
            row = block * LANES
            _gather(before, _shift(S, row * r), row, min(LANES, r - row), r, one - one)
        for t in range(T):
            at = t * strides[1] + n * r
            live = x[1] == 0 or valid[b * T + t] != 0
            _squash(z, at, q, r, normalise, one)
            for block in range(blocks):
                row = block * LANES
                read = _product(S, row * r, q, 0, r)
                _store(reads, t * R + row, min(LANES, r - row), read if live else read - read)
            if live and writes:
                _squash(z, at + R, k, r, normalise, one)
                more = 0 if coupled else G
                _gates(
                    z,
                    t * strides[1] + 3 * R + gate,
                    more,
                    beta_bias,
                    lambda_bias,
                    keep,
                    erase,
                    write,
                    r,
                    wide,
                    mode,
                    one,
                )
                for block in range(blocks):
                    row = block * LANES
                    predicted = _product(S, row * r, k, 0, r)
                    v = _load(z, at + 2 * R + row, min(LANES, r - row))
                    value = _load(write, row, LANES) * v - _load(erase, row, LANES) * predicted
                    _update(S, row * r, row * r, _load(keep, row, LANES), value, k, 0, r)
        if writes:
            for block in range(blocks):
                row = block * LANES
                _scatter(_shift(S, row * r), after, row, min(LANES, r - row), r)
