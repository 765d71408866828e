"""More programs that a sandbox has to withstand: forged passes, by way of the interpreter. None may count as right.

Those of `NATIVE`, `BYTECODE` and `HOOK` reach their end only if what they try succeeds; those of `ANSWER` are wrong.
"""

from __future__ import annotations

import textwrap

# what comes after a hostile beginning is a test that a wrong answer fails
_TEST = "\nassert (lambda x: x)(1) == 2\n"


def _table(**programs: str) -> dict[str, str]:
    return {name: textwrap.dedent(source).strip() + "\n" for name, source in programs.items()}


# reads memory at an address: the word that counts as a pass would be in reach
_PEEK = """
        class Place(space['Union']):
            _fields_ = [('number', space['_SimpleCData'].__class__('N', (space['_SimpleCData'],), {'_type_': 'N'})),
                        ('text', space['_SimpleCData'].__class__('Z', (space['_SimpleCData'],), {'_type_': 'z'}))]
        place = Place()
        place.number = id(b'x') + 32
        assert place.text == b'x'
"""

NATIVE = _table(
    extension_under_another_name="""
        import _json, importlib.machinery, importlib.util, os
        path = _json.__file__.replace('_json', '_ctypes')
        loader = importlib.machinery.ExtensionFileLoader('harmless._ctypes', path)
        spec = importlib.util.spec_from_loader('harmless._ctypes', loader)
        space = vars(importlib.util.module_from_spec(spec))
    """
    + _PEEK,
    extension_from_the_cache="""
        import _imp, _json, os, types
        path = _json.__file__.replace('_json', '_ctypes')
        space = vars(_imp.create_dynamic(types.SimpleNamespace(name='_ctypes', origin=path)))
    """
    + _PEEK,
    types_of_ctypes="""
        import os
        def find(kind):
            for sub in type.__subclasses__(kind):
                yield sub
                yield from find(sub)
        space = {kind.__name__: kind for kind in find(object)}
    """
    + _PEEK,
    types_of_ctypes_by_their_type="""
        import os
        space = {kind.__name__: kind for meta in type.__subclasses__(type) for kind in type.__subclasses__(meta)}
        space |= {meta.__name__: meta for meta in type.__subclasses__(type) if 'ctypes' in meta.__module__}
        next(iter(k for n, k in space.items() if n.startswith('PyC')))
    """,
    types_from_the_garbage="""
        import gc, os
        gc.unfreeze()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = [thing for thing in gc.garbage if isinstance(thing, type) and 'ctypes' in thing.__module__]
        space = {kind.__name__: kind for kind in kinds}
        space['c_size_t']
    """,
    modules_above="""
        import sys
        frame, found = sys._getframe(), []
        while frame:
            names = ('native', 'confine', 'ctypes', 'syscalls', 'own')
            found += [frame.f_globals[name] for name in names if name in frame.f_globals]
            found += [value for value in frame.f_locals.values() if hasattr(value, 'fork')]
            frame = frame.f_back
        assert found
    """,
    main_module="import __main__\n__main__.native.call('getpid')\n__main__.FAILED",
    builtin_made_anew="""
        import _imp, importlib.machinery
        spec = importlib.machinery.ModuleSpec('posix', importlib.machinery.BuiltinImporter)
        posix = _imp.create_builtin(spec)
        _imp.exec_builtin(posix)
        if posix.fork() == 0:
            while True: pass
    """,
    import_machinery_made_anew="""
        import sys, importlib
        for name in ('gc', 'marshal', '_imp', 'posix', '_posixsubprocess'):
            del sys.modules[name]
        import gc
        gc.get_objects()
    """,
    own_native_code="""
        import _json, importlib.machinery
        try:
            open('mine.so', 'wb').write(open(_json.__file__, 'rb').read())
        except PermissionError:
            open('mine.so', 'wb').write(b'\x7fELF')
        importlib.machinery.ExtensionFileLoader('_json', './mine.so').create_module(
            importlib.machinery.ModuleSpec('_json', None, origin='./mine.so'))
    """,
    extension_of_the_database="""
        import _json, sqlite3
        c = sqlite3.connect(':memory:')
        c.enable_load_extension(True)
        c.load_extension(_json.__file__)
    """,
    testing_module="import _testcapi, _testinternalcapi",
    foreign_interpreter="""
        try:
            import _interpreters as i
        except ImportError:
            import _xxsubinterpreters as i
        i.create()
    """,
)

BYTECODE = _table(
    other_constants="""
        def f(): return 'constant'
        g = type(f)(f.__code__.replace(co_consts=()), {})
        g()
    """,
    new_code="""
        import types
        c = (lambda: 1).__code__
        names = '''argcount posonlyargcount kwonlyargcount nlocals stacksize flags code consts names varnames
            filename name qualname firstlineno linetable exceptiontable freevars cellvars'''
        types.CodeType(*[getattr(c, 'co_' + name) for name in names.split()])
    """,
    code_by_another_frame="""
        import types
        class Code:
            __class__ = types.CodeType
            co_flags = 0x20
            def replace(self, **_): return (lambda: 1).__code__.replace(co_consts=())
        class F:
            __class__ = types.FunctionType
            __code__ = Code()
        types.coroutine(F())
    """,
    code_by_marshal="import marshal\nmarshal.loads(marshal.dumps((lambda: 1).__code__))",
    code_by_a_file="""
        import importlib.machinery, _imp
        head = importlib.util.MAGIC_NUMBER + bytes(12)
        open('own.pyc', 'wb').write(head + bytes.fromhex('e300') + bytes(64))
        importlib.machinery.SourcelessFileLoader('own', 'own.pyc').load_module()
    """,
    code_by_a_frozen_module="import _imp\n_imp.get_frozen_object('x', b'\\xe3' + bytes(60))",
    jump="""
        import sys
        def jump(frame, event, argument):
            if event == 'line': frame.f_lineno = 99
            return jump
        sys.settrace(jump)
    """,
    jump_by_all_threads="""
        import threading, sys
        threading.settrace(print)
        getattr(threading, 'settrace_all_threads', lambda f: 1 / 0)(print)
    """,
)

HOOK = _table(
    names_of_the_hook="""
        import sys
        try:
            (lambda: 1).__code__.replace(co_consts=())
        except PermissionError as error:
            trace = error.__traceback__
            while trace:
                frame = trace.tb_frame
                if frame.f_code.co_filename.endswith('audit.py'):
                    for name in list(frame.f_globals): frame.f_globals[name] = lambda *a, **k: None
                    for name in list(frame.f_builtins): frame.f_builtins[name] = lambda *a, **k: True
                    for name in ('events', 'denied', 'frame'): frame.f_locals[name] = ()
                trace = trace.tb_next
        (lambda: 1).__code__.replace(co_consts=())
    """,
    builtins_of_the_hook="""
        import builtins
        for name in ('type', 'isinstance', 'PermissionError', 'any', 'all', 'map'):
            setattr(builtins, name, lambda *a: True)
        (lambda: 1).__code__.replace(co_consts=())
    """,
    a_text_that_changes_its_mind="""
        class Path(str):
            def startswith(self, *a): return True
            def split(self, *a): return []
            def __radd__(self, other): return './x'
            def __format__(self, how): return './x'
        print(open(Path('/etc/passwd')).read())
    """,
    no_recursion_left="""
        import sys
        def deep():
            try:
                deep()
            except RecursionError:
                (lambda: 1).__code__.replace(co_consts=())
        deep()
    """,
)

ANSWER = _table(
    one_more_hook="import sys\nsys.addaudithook(lambda *a: 1 / 0)\nopen('x', 'w')",
    jump_from_a_profile="""
        import sys
        here = sys._getframe()
        here.f_trace = lambda *a: None
        def jump(frame, event, argument):
            here.f_lineno = 12
        sys.setprofile(jump)
        len('')
    """,
    frames_are_written="""
        import sys
        frame = sys._getframe().f_back
        while frame:
            for name in list(frame.f_locals):
                try:
                    frame.f_locals[name] = b'pass'
                except Exception:
                    pass
            frame = frame.f_back
    """,
    globals_above_are_written="""
        import sys
        frame = sys._getframe().f_back
        while frame:
            frame.f_globals.update(FAILED=b'', REFUSED=b'', _described=lambda e: b'', exec=lambda *a: None, run=print)
            frame = frame.f_back
    """,
    a_thread_answers_later="""
        import threading, time
        def late():
            for _ in range(10**6):
                try:
                    os.write(handle, b'0123456789abcdef')
                except OSError:
                    pass
        for handle in range(3, 20):
            import os
            threading.Thread(target=late, daemon=True).start()
    """,
    the_answer_is_another_pipe="""
        import os
        reader, writer = os.pipe()
        for handle in range(3, 32):
            try:
                os.dup2(writer, handle)
            except OSError:
                pass
        os.write(writer, b'pass')
    """,
    an_error_that_lies="""
        class Lie(BaseException):
            def __str__(self): return 'pass'
        Lie.__name__ = 'pass'
        raise Lie
    """,
    a_fault_of_the_host="import errno\nraise OSError(errno.ENOSPC, 'No space left on device')",
    a_fault_of_the_library="raise ImportError('colorsys')",
    no_memory="raise MemoryError",
    a_handler_at_the_end="""
        import signal, os
        def ring(number, frame):
            while frame:
                if frame.f_code.co_name in ('judge', '_completed'):
                    for value in frame.f_locals.values():
                        if isinstance(value, bytes): os.write(3, value)
                frame = frame.f_back
        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for _ in range(10**5): pass
    """,
    asserts_are_silent="""
        import builtins
        builtins.AssertionError = type('S', (StopIteration,), {})
        setattr(builtins, '__debug__', False)
    """,
    everything_is_an_exception="""
        import builtins
        for name in dir(builtins):
            if isinstance(getattr(builtins, name), type) and issubclass(getattr(builtins, name), BaseException):
                setattr(builtins, name, ZeroDivisionError)
    """,
    says_that_it_is_ready="""
        import os
        for handle in range(3, 20):
            try:
                os.write(handle, b'1\\n0123456789abcdef')
            except OSError:
                pass
    """,
)

PROGRAMS: dict[str, str] = (
    NATIVE | BYTECODE | HOOK | {name: source + _TEST for name, source in ANSWER.items()}
)
