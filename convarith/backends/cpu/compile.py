"""From an emitter of LLVM's instructions, or a worker in Python, to an object file.

Numba is imported where a worker is compiled, and nowhere else.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable

from llvmlite import binding, ir

from .native import BYTES, I64

_VOID = ir.VoidType()


def kernel_object(emit: Callable[[ir.IRBuilder, ir.Value], object], entry: str) -> bytes:
    """Return the object file of a kernel, ``emit(builder, arguments)``, under the name `entry`."""
    machine, module = target_machine(), _module()
    module.data_layout = str(machine.target_data)
    function = ir.Function(module, ir.FunctionType(_VOID, [I64]), entry)
    builder = ir.IRBuilder(function.append_basic_block())
    emit(builder, *function.args)
    builder.ret_void()
    code = binding.parse_assembly(str(module))
    code.verify()
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = False  # it is in vectors as it is
    passes = binding.create_pass_builder(machine, options)
    passes.getModulePassManager().run(code, passes)
    return machine.emit_object(code)


def worker_object(module: str, name: str, entry: str) -> bytes:
    """Return the object file of a worker, a function of a module here, under the name `entry`.

    Numba compiles to a function that takes an address for its result and one for an exception, of
    which workers have neither, and returns a status: the entry goes without them.
    """
    from numba import config, types

    if config.DISABLE_JIT:
        raise RuntimeError(
            "NUMBA_DISABLE_JIT: expected 0, got 1: backend='reference' needs no Numba"
        )

    from .intrinsics import inlined

    function = getattr(importlib.import_module(f".{module}", __package__), name)
    numbers = (types.int64, types.int64)
    compiled = inlined(types.void(*numbers))(function)
    code = binding.parse_assembly(compiled.inspect_llvm(numbers))
    around = _module()
    inner = ir.Function(
        around,
        ir.FunctionType(ir.IntType(32), [BYTES.as_pointer(), BYTES.as_pointer(), I64, I64]),
        compiled.overloads[numbers].fndesc.mangled_name,
    )
    outer = ir.Function(around, ir.FunctionType(_VOID, [I64, I64]), entry)
    builder = ir.IRBuilder(outer.append_basic_block())
    result = builder.alloca(BYTES)
    builder.call(inner, [result, ir.Constant(BYTES.as_pointer(), None), *outer.args])
    builder.ret_void()
    code.link_in(binding.parse_assembly(str(around)))
    for made in code.functions:
        if not made.is_declaration and made.name != entry:
            made.linkage = "internal"  # another worker may have one of the same name
    code.verify()
    return target_machine().emit_object(code)


def target_machine() -> binding.TargetMachine:
    """Return what LLVM generates code for: this machine, with all that it can do."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_triple(binding.get_process_triple())
    return target.create_target_machine(
        cpu=binding.get_host_cpu_name(),
        features=features(),
        opt=3,
        reloc="static" if target.name.startswith("x86") else "default",
        codemodel="jitdefault",
        jit=True,
    )


@functools.cache
def features() -> str:
    """Return what this machine can do, in LLVM's words."""
    return binding.get_host_cpu_features().flatten()


def _module() -> ir.Module:
    module = ir.Module()
    module.triple = binding.get_process_triple()
    return module
