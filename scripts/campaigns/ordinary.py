"""Programs of unusual shape that mean no harm: name -> source, by the verdict of Hugging Face's `code_eval`.

`PASSES`: it passes there. `FAILS`: it does not, because it is wrong or because of what `code_eval` takes away.
`DEVIATES`: pkt's verdict is another one on purpose; SECURITY.md says why.
"""

from __future__ import annotations

import textwrap


def _table(**programs: str) -> dict[str, str]:
    return {name: textwrap.dedent(source).strip("\n") + "\n" for name, source in programs.items()}


NAMES = _table(
    plain="def f(x):\n    return x + 1\nassert f(1) == 2",
    main_guard_is_not_entered="""
        def f(): return 1
        if __name__ == "__main__":
            raise SystemExit("this would end the program")
        assert f() == 1
    """,
    module_name="assert __name__ == 'builtins'",
    module_of_a_class="class A: pass\nassert A.__module__ == 'builtins'",
    no_file="assert '__file__' not in globals()",
    globals_hold_only_what_is_defined="x = 1\nassert sorted(globals()) == ['__builtins__', 'x']",
    builtins_are_a_dict="assert isinstance(__builtins__, dict)",
    locals_are_globals="assert locals() is globals()",
    annotations_are_values="def f(x: int) -> str: ...\nassert f.__annotations__ == {'x': int, 'return': str}",
    annotations_are_evaluated_late="""
        from __future__ import annotations
        def f(x: Nowhere): ...
        assert f.__annotations__['x'] == 'Nowhere'
    """,
    module_annotations="x: int = 1\nassert __annotations__ == {'x': int}",
    coding_line="# -*- coding: latin-1 -*-\nassert len('ä') == 1",
    doc="'''A docstring.'''\nassert __doc__ == 'A docstring.'",
    file_name_in_tracebacks="""
        import traceback
        try:
            raise ValueError
        except ValueError:
            assert '<string>' in traceback.format_exc()
    """,
    windows_lines="def f():\r\n    return 1\r\nassert f() == 1\r\n",
    tabs="def f():\n\treturn 1\nassert f() == 1",
    form_feed="x = 1\n\f\nassert x == 1",
    no_newline_at_the_end="assert 1",
    empty="",
    unicode_names="größe = 3\nassert größe == 3",
    walrus_and_match="""
        match (n := 3):
            case int(x) if x > 2: found = x
        assert found == n
    """,
    global_statement="x = 0\ndef f():\n    global x\n    x += 1\nf()\nassert x == 1",
    star_import="from math import *\nassert floor(pi) == 3",
    exec_inside="space = {}\nexec('x = 2', space)\nassert space['x'] == 2",
    compile_inside="exec(compile('y = 3', 'f', 'exec'))\nassert y == 3",
    nested_class_and_closure="""
        def outer():
            class A:
                def f(self): return [lambda: i for i in range(3)]
            return A
        assert [g() for g in outer()().f()] == [2, 2, 2]
    """,
    a_name_of_the_harness="source = gate = answer = 1\nassert source == 1",
    shadowed_builtins="def print(*a): pass\nlist = [1]\nassert list == [1]",
    main_module_is_there="import __main__\nassert __main__ is not None",
)
OUTPUT = _table(
    prints="print('hello')",
    prints_a_surrogate="print('\\udc80 \\ud800')",
    prints_much="print('x' * 10**6)\nfor i in range(1000): print(i)",
    writes_to_stderr="import sys\nprint('\\ud800', file=sys.stderr)",
    output_is_text_in_memory="import sys\nassert sys.stdout.encoding is None and not hasattr(sys.stdout, 'buffer')",
    output_can_be_read_back="import sys\nprint('a')\nassert sys.stdout.getvalue() == 'a\\n'",
    output_is_no_terminal="import sys\nassert not sys.stdout.isatty()",
    flushes="import sys\nprint('x', flush=True)\nsys.stdout.flush()",
    redirected="""
        import contextlib, io
        with contextlib.redirect_stdout(io.StringIO()) as out: print('caught')
        assert out.getvalue() == 'caught\\n'
    """,
    no_input_is_an_error="try:\n    input()\n    assert False\nexcept OSError:\n    pass",
    cannot_be_read="import sys\nassert not sys.stdin.readable()",
    replaces_output="import io, sys\nsys.stdout = io.StringIO()\nprint('x')\nassert sys.stdout.getvalue() == 'x\\n'",
    warns="import warnings\nwarnings.warn('careful')",
    invalid_escape="x = '\\d'\nassert len(x) == 2",
    logs="import logging\nlogging.basicConfig()\nlogging.error('no')",
    prints_a_traceback="import traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc()",
    help_is_gone="assert help is None and exit is None and quit is None",
)
LIBRARY = _table(
    dataclass="""
        from dataclasses import dataclass, field
        @dataclass(order=True)
        class P:
            x: int
            y: list = field(default_factory=list)
        assert P(1) < P(2)
    """,
    slotted_dataclass="""
        from dataclasses import dataclass
        @dataclass(slots=True, frozen=True)
        class P:
            x: int = 0
        assert P().x == 0
    """,
    dataclass_with_late_annotations="""
        from __future__ import annotations
        from dataclasses import dataclass
        from typing import ClassVar
        @dataclass
        class P:
            x: int
            n: ClassVar[int] = 0
        assert P(1) == P(1)
    """,
    named_tuple="from typing import NamedTuple\nclass P(NamedTuple):\n    x: int = 1\nassert P().x == 1",
    enum="from enum import Enum, auto\nclass C(Enum):\n    A = auto()\nassert C.A.value == 1",
    type_hints_of_a_function="import typing\ndef f(x: 'int'): ...\nassert typing.get_type_hints(f) == {'x': int}",
    generic="from typing import Generic, TypeVar\nT = TypeVar('T')\nclass B(Generic[T]): ...\nassert B[int]()",
    protocol="""
        from typing import Protocol, runtime_checkable
        @runtime_checkable
        class P(Protocol):
            def f(self): ...
        class A:
            def f(self): ...
        assert isinstance(A(), P)
    """,
    pickles_data="import pickle\nassert pickle.loads(pickle.dumps({'a': [1, (2,)]})) == {'a': [1, (2,)]}",
    copies="import copy\nclass A:\n    def __init__(self): self.x = [1]\na = A()\nassert copy.deepcopy(a).x is not a.x",
    asynchronous="""
        import asyncio
        async def f(x):
            await asyncio.sleep(0.01)
            return x
        async def main(): return await asyncio.gather(*(f(i) for i in range(3)))
        assert asyncio.run(main()) == [0, 1, 2]
    """,
    asynchronous_in_a_thread="""
        import asyncio
        async def f(): return await asyncio.to_thread(sum, [1, 2])
        assert asyncio.run(f()) == 3
    """,
    threads="""
        import threading
        found = []
        some = [threading.Thread(target=found.append, args=(i,)) for i in range(8)]
        for t in some: t.start()
        for t in some: t.join()
        assert sorted(found) == list(range(8))
    """,
    a_thread_that_never_ends="""
        import threading, time
        threading.Thread(target=time.sleep, args=(99,)).start()
        assert True
    """,
    a_daemon="import threading, time\nthreading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
    thread_pool="""
        from concurrent.futures import ThreadPoolExecutor as P
        with P(4) as p: assert list(p.map(abs, [-1, -2])) == [1, 2]
    """,
    queue_and_lock="import queue, threading\nq = queue.Queue()\nwith threading.Lock(): q.put(1)\nassert q.get() == 1",
    timer="import threading\ndone = threading.Event()\nthreading.Timer(0.01, done.set).start()\nassert done.wait(2)",
    main_thread="import threading\nassert threading.current_thread() is threading.main_thread()",
    alarm="""
        import signal
        class Late(Exception): pass
        def ring(*_): raise Late
        signal.signal(signal.SIGALRM, ring)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            while True: pass
        except Late:
            signal.setitimer(signal.ITIMER_REAL, 0)
    """,
    raises_a_signal="""
        import signal
        got = []
        signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
        signal.raise_signal(signal.SIGUSR1)
        assert got
    """,
    temporary_file="""
        import tempfile
        with tempfile.NamedTemporaryFile('w+') as f:
            f.write('x'); f.seek(0)
            assert f.read() == 'x'
    """,
    files="""
        import os
        open('a', 'w').write('x')
        os.mkdir('d')
        os.symlink('a', 'd/l')
        assert sorted(os.listdir()) == ['a', 'd']
    """,
    many_files_at_once="some = [open(f'f{i}', 'w') for i in range(200)]\nassert len(some) == 200",
    paths="""
        from pathlib import Path
        Path('x').write_text('é', encoding='utf-8')
        assert Path('x').read_text(encoding='utf-8') == 'é'
    """,
    touches_again="from pathlib import Path\nPath('a').touch()\nPath('a').touch()",
    own_database="""
        import sqlite3
        c = sqlite3.connect('d')
        c.execute('create table t (x)')
        c.execute('insert into t values (1)')
        c.commit()
        assert c.execute('select x from t').fetchall() == [(1,)]
    """,
    archives="""
        import zipfile, tarfile, gzip, bz2, lzma
        with zipfile.ZipFile('z', 'w') as z: z.writestr('a', 'b')
        assert zipfile.ZipFile('z').read('a') == b'b'
        assert lzma.decompress(lzma.compress(b'x')) == b'x'
    """,
    memory_map="import mmap\nm = mmap.mmap(-1, 4096)\nm[:2] = b'ab'\nassert m[:2] == b'ab'",
    decimals="""
        from decimal import Decimal, getcontext
        getcontext().prec = 50
        assert str(Decimal(2).sqrt()).startswith('1.41421356237309504880168872420969807856967187537')
    """,
    too_many_digits="try:\n    str(10 ** 5000)\n    assert False\nexcept ValueError:\n    pass",
    locale="import locale\nlocale.setlocale(locale.LC_ALL, 'C')\nassert locale.localeconv()['decimal_point'] == '.'",
    codecs="assert 'й'.encode('cp1251').decode('cp1251') == 'й' and 'あ'.encode('shift_jis')",
    time_zones="from datetime import datetime, timezone\nassert datetime.fromtimestamp(0, timezone.utc).year == 1970",
    random_numbers="import random\nrandom.seed(1)\nassert random.randint(0, 10**6) == 140891",
    secrets="""
        import secrets, uuid, hashlib
        assert len(secrets.token_hex(4)) == 8 and uuid.uuid4() and hashlib.sha256(b'').hexdigest()[:4] == 'e3b0'
    """,
    expressions="import re, ast\nassert re.findall(r'\\d+', 'a1b22') == ['1', '22'] and ast.literal_eval('[1]') == [1]",
    unit_tests="""
        import unittest
        class T(unittest.TestCase):
            def test(self): self.assertEqual(1, 1)
        result = unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(T))
        assert result.wasSuccessful()
    """,
    mocks="from unittest import mock\nwith mock.patch('math.pi', 3):\n    import math\n    assert math.pi == 3",
    doc_tests="""
        import doctest
        def f(x):
            '''
            >>> f(1)
            2
            '''
            return x + 1
        doctest.run_docstring_examples(f, globals())
    """,
    profiles="import cProfile\np = cProfile.Profile()\np.enable()\nsum(range(9))\np.disable()",
    own_importer="import importlib, sys, types\nsys.modules['mine'] = types.ModuleType('mine')\nimport mine",
    own_module="""
        open('own.py', 'w').write('x = 7')
        import sys
        sys.path.insert(0, '.')
        try:
            import own
        except TypeError:
            pass
    """,
    rare_modules="""
        import colorsys, wsgiref.util, xml.etree.ElementTree as E, html.entities
        assert E.fromstring('<a/>').tag == 'a'
    """,
    registers_an_exit="import atexit\natexit.register(lambda: 1 / 0)",
    resource_is_hidden="try:\n    import resource\n    assert False\nexcept ImportError:\n    pass",
    coroutine_by_types="""
        import types
        @types.coroutine
        def f():
            yield 1
        async def g(): await f()
        assert g().send(None) == 1
    """,
    garbage="import gc, weakref\nclass A: pass\na = A(); r = weakref.ref(a); del a\ngc.collect()\nassert r() is None",
)
DEEP = _table(
    recursion_to_900="def f(n): return n and 1 + f(n - 1)\nassert f(900) == 900",
    catches_recursion="def f(): f()\ntry:\n    f()\nexcept RecursionError:\n    pass",
    higher_recursion="""
        import sys
        sys.setrecursionlimit(20000)
        def f(n): return n and 1 + f(n - 1)
        assert f(10000) == 10000
    """,
    large_list="assert sum(range(10 ** 6)) == 499999500000",
    a_hundred_megabytes="x = bytearray(10 ** 8)\nassert len(x) == 10 ** 8",
    sleeps="import time\ntime.sleep(0.3)",
    a_second_of_work="import time\nt = time.process_time()\nwhile time.process_time() - t < 1: pass",
    catches_everything="try:\n    raise SystemExit\nexcept BaseException:\n    pass",
    exception_groups="try:\n    raise ExceptionGroup('g', [ValueError()])\nexcept* ValueError:\n    pass",
    generators="def g():\n    try:\n        yield 1\n    finally:\n        pass\nassert next(g()) == 1",
    a_finaliser_that_raises="class A:\n    def __del__(self): raise ValueError\nA()",
    agreeable="class E:\n    def __eq__(self, o): return True\nassert E() == 2",
)
PASSES: dict[str, str] = NAMES | OUTPUT | LIBRARY | DEEP

FAILS = _table(
    wrong="def f(x):\n    return x\nassert f(1) == 2",
    wrong_type="def f(x):\n    return str(x)\nassert f(1) == 1",
    returns_none="def f(x):\n    x + 1\nassert f(1) == 2",
    syntax="def f(:",
    indentation="def f():\nreturn 1",
    unfinished_call="def f(x):\n    return (x",
    markdown="```python\ndef f(): return 1\n```",
    prose="Here is the function:\ndef f(): return 1",
    unknown_name="assert undefined_name == 1",
    missing_module="import a_module_that_nobody_has",
    null_byte="x = '\0'",
    lone_surrogate_in_the_source="x = '\udc80'",
    leaves="import sys\nsys.exit(0)",
    leaves_with_none="raise SystemExit",
    leaves_at_once="import os\nos._exit(0)",
    leaves_by_exit="exit()",
    leaves_by_quit="quit()",
    leaves_by_interrupt="raise KeyboardInterrupt",
    raises_a_base_exception="raise BaseException",
    raises_a_group="raise ExceptionGroup('g', [ValueError()])",
    asks="x = input()",
    asks_and_expects_the_end="try:\n    input()\nexcept EOFError:\n    pass",
    reads_input="import sys\nsys.stdin.read()",
    iterates_over_input="import sys\nfor line in sys.stdin: pass\nassert False",
    writes_bytes="import sys\nsys.stdout.buffer.write(b'x')",
    reconfigures="import sys\nsys.stdout.reconfigure(encoding='utf-8')",
    file_number="import sys\nsys.stdout.fileno()",
    works_only_as_main="if __name__ == '__main__':\n    x = 1\nassert x == 1",
    file_is_used="assert __file__",
    pickles_an_own_class="import pickle\nclass A: pass\npickle.dumps(A())",
    late_hints_of_a_class="import typing\nclass B: ...\nclass A:\n    b: 'B'\ntyping.get_type_hints(A)",
    endless="while True: pass",
    sleeps_for_ever="import time\ntime.sleep(99)",
    endless_and_deaf="while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    waits_for_a_thread="""
        import threading, time
        t = threading.Thread(target=time.sleep, args=(99,))
        t.start()
        t.join()
    """,
    deadlock="import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
    recursion="def f(): f()\nf()",
    huge="x = bytearray(2 ** 50)",
    aborts="import os\nos.abort()",
    unit_main="import unittest\nunittest.main()",
    unraisable="def f():\n    raise ValueError('\\ud800')\nf()",
    exception_without_text="class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
    removes_a_file="import os\nopen('a', 'w').close()\nos.remove('a')",
    unlinks="from pathlib import Path\nPath('a').touch()\nPath('a').unlink()",
    asks_for_the_folder="import os\nos.getcwd()",
    changes_the_folder="import os\nos.mkdir('d')\nos.chdir('d')",
    renames="import os\nopen('a', 'w').close()\nos.rename('a', 'b')",
    absolute_path="import os\nos.path.abspath('a')",
    temporary_folder="import tempfile\nwith tempfile.TemporaryDirectory(): pass",
    removes_a_tree="import os, shutil\nos.mkdir('d')\nshutil.rmtree('d')",
    moves="import shutil\nopen('a', 'w').close()\nshutil.move('a', 'b')",
    copies_with_its_mode="import shutil\nopen('a', 'w').close()\nshutil.copy('a', 'b')",
    sets_the_environment="import os\nos.environ['X'] = '1'",
    runs_a_command="import os\nos.system('true')",
    runs_a_process="import subprocess\nsubprocess.run(['true'])",
    forks="import os\nif os.fork() == 0: os._exit(0)",
    process_pool="""
        from concurrent.futures import ProcessPoolExecutor as P
        with P(1) as p: assert list(p.map(abs, [-1])) == [1]
    """,
    child_process="import multiprocessing\np = multiprocessing.Process(target=print)\np.start()\np.join()",
    kills_itself_softly="import os, signal\nos.kill(os.getpid(), signal.SIGUSR1)",
    needs_resource="import resource",
    needs_tkinter="import tkinter",
    asks_for_help="help(int)",
    assertion_with_a_message="assert 1 == 2, 'one is not two'",
    modifies_while_iterating="d = {1: 1}\nfor k in d: d[k + 1] = 1",
    infinite_generator="def g():\n    while True: yield 1\nlist(g())",
    test_redefines="def f(): return 1\ndef f(): return 2\nassert f() == 1",
    mutable_default="def f(x=[]):\n    x.append(1)\n    return x\nf()\nassert f() == [1]",
)

DEVIATES = _table(
    swallows_the_time_limit="try:\n    while True: pass\nexcept Exception:\n    pass",
    has_an_environment="import os\nassert os.environ['PATH']",
    has_a_home="import os\nassert os.path.expanduser('~') != '~'",
    imports_numpy="import numpy",
    reads_the_system="open('/etc/passwd').read()",
    a_gigabyte="x = bytearray(10 ** 9)",
    opens_a_socket="import socket\nsocket.socket().close()",
    makes_a_lock_between_processes="import multiprocessing\nmultiprocessing.Lock()",
    changes_times="import os\nopen('a', 'w').close()\nos.utime('a', (0, 0))",
    replaces_code="def f(): return 1\nf.__code__ = f.__code__.replace(co_name='g')",
    marshals="import marshal\nmarshal.loads(marshal.dumps(1))",
    traces="import sys\nsys.settrace(lambda *_: None)",
    lists_all_objects="import gc\nassert gc.get_objects()",
    foreign_functions="import ctypes\nctypes.sizeof(ctypes.c_int)",
    terminal="import curses",
    one_very_large_file="open('a', 'wb').write(bytes(2**25))",
)
