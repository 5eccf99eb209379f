"""What views are: the daemon's memory in place, read-only where it is kept, never dangling."""
import contextlib
import ctypes
import gc
import os
import resource
import signal
import socket
import struct
import tempfile
import threading
import unittest

import numpy as np

import kvasir
from kvasir import _abi
from support import (DIM, HEADS, LAYERS, Daemon, DaemonTest, main, rows_of, tokens_of,
                     write_rows)


def pages_present(array):
    """How many pages of the array this process has in its page table, and how many there are."""
    page = os.sysconf("SC_PAGESIZE")
    low, high = np.lib.array_utils.byte_bounds(array) if hasattr(np.lib, "array_utils") else \
        np.byte_bounds(array)
    first, count = low // page, (high + page - 1) // page - low // page
    with open("/proc/self/pagemap", "rb") as pagemap:
        pagemap.seek(first * 8)
        entries = struct.unpack(f"{count}Q", pagemap.read(count * 8))
    return sum(entry >> 63 for entry in entries), count


class ViewsTest(DaemonTest):
    def publish(self, count=96, salt=b"views", **changes):
        model, tokens = self.register(**changes), tokens_of(count)
        prompt = kvasir.Prompt(tokens, salt=salt)
        with self.session.open(model, "full", prompt=prompt) as sequence:
            sequence.append(tokens, write_rows if not changes else lambda step: None)
            sequence.publish_prefix()
        return model, prompt

    def test_kept_rows_cannot_be_made_writable(self):
        model, prompt = self.publish()
        sequence = self.session.open(model, "full", prompt=prompt)
        run = sequence.begin()[0].kept[0]
        for array in (run.k, run.v, run.positions, run.tokens, run.k[2:4], run.k.view(np.uint32),
                      np.asarray(run.k), run.k.T, np.frombuffer(memoryview(run.tokens), np.uint32),
                      np.lib.stride_tricks.as_strided(run.k, writeable=True)):
            self.assertFalse(array.flags.writeable)
            with self.assertRaises(ValueError):
                array.flags.writeable = True
            with self.assertRaises(ValueError):
                array[...] = 0
            self.assertTrue(memoryview(array).readonly)
            base = array
            while base is not None:  # no way leads to a writable owner
                if isinstance(base, np.ndarray):
                    with self.assertRaises(ValueError):
                        base.flags.writeable = True
                elif isinstance(base, kvasir.Memory):
                    self.assertTrue(base.__array_interface__["data"][1])
                    base.__array_interface__["data"] = (0, False)  # a copy of it
                    self.assertFalse(np.asarray(base).flags.writeable)
                else:  # of memoryview() and of as_strided()
                    interface = getattr(base, "__array_interface__", None)
                    self.assertTrue(interface["data"][1] if interface else base.readonly)
                base = getattr(base, "base", None)

    def test_who_goes_round_python_meets_the_kernel(self):
        model, prompt = self.publish()
        sequence = self.session.open(model, "full", prompt=prompt)
        address = sequence.begin()[0].kept[0].k.ctypes.data
        page = address // 4096 * 4096
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        self.assertEqual(libc.mprotect(page, 4096, 3), -1, "the mapping can be made writable")
        with open("/proc/self/maps", encoding="ascii") as maps:
            for line in maps:
                low, high = (int(one, 16) for one in line.split()[0].split("-"))
                if low <= address < high:
                    self.assertEqual(line.split()[1][:2], "r-")

    def test_dlpack_shares_and_says_read_only(self):
        model, prompt = self.publish()
        sequence = self.session.open(model, "full", prompt=prompt)
        view = sequence.begin()[1]
        run, block = view.kept[0], view.recent[-1]
        memory = run.k.base
        self.assertIsInstance(memory, kvasir.Memory)
        self.assertEqual(memory.__dlpack_device__(), (1, 0))
        with self.assertRaises(BufferError):  # of an older caller
            memory.__dlpack__()
        for source in (memory, run.k):
            with contextlib.suppress(BufferError):  # NumPy before 2.1 cannot say read-only
                shared = np.from_dlpack(source)
                self.assertEqual(shared.ctypes.data, run.k.ctypes.data)
                self.assertFalse(shared.flags.writeable)
                with self.assertRaises(ValueError):
                    shared.flags.writeable = True
        shared = np.from_dlpack(block.k)
        self.assertEqual(shared.ctypes.data, block.k.ctypes.data)

    def test_recent_rows_are_written_in_place(self):
        model = self.register()
        with self.session.open(model, "full") as sequence:
            step = sequence.begin(20)
            block = step[0].recent[0]
            block.k[3, 1, 2] = 42
            self.assertEqual(step[0].recent_rows(3, 4)[0].k[0, 1, 2], 42)
            self.assertEqual(sequence.begin(20)[0].recent[0].k[3, 1, 2], 42)

    def test_attaching_touches_no_byte_of_kv(self):
        big = [kvasir.LayerSpec(HEADS, 256, 256)] * LAYERS
        self.publish(count=512, salt=b"faults", layers=big)
        prompt = kvasir.Prompt(tokens_of(512), salt=b"faults")
        with self.daemon.connect() as session:
            model = session.register_model(kvasir.ModelSpec(
                **{**self.register(layers=big).spec.__dict__}))
            with session.open(model, "full", prompt=prompt) as sequence:
                self.assertGreaterEqual(sequence.rows, 496)
                step = sequence.begin()
                arrays = [array for view in step for run in view.kept
                          for array in (run.k, run.v, run.positions, run.tokens)]
                kv = sum(array.nbytes for array in arrays)
                self.assertGreater(kv, 4 << 20)
                self.assertEqual(sum(pages_present(array)[0] for array in arrays), 0)
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                for array in arrays:
                    array.copy()
                faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
                self.assertGreater(faults, 0, "reading does fault: the counters count")
                self.assertGreater(sum(pages_present(array)[0] for array in arrays), 0)

    def test_arrays_outlive_step_sequence_and_session(self):
        model, prompt = self.publish()
        session = self.daemon.connect()
        sequence = session.open(session.register_model(model.spec), "full", prompt=prompt)
        step = sequence.begin()
        write_rows(step)
        view = step[0]
        run, recent = view.kept[0], view.recent_rows(step.row, step.row + 1)[0]
        late = view.kept[0]  # its arrays are made after the end
        k, wanted = run.k, rows_of(0, run.rows, 0, 0)
        sequence.commit([9])
        for use in (lambda: step[0], lambda: view.write(0, wanted[:1], wanted[:1]),
                    lambda: sequence.commit([9])):
            with self.assertRaises(kvasir.ClosedError):
                use()
        sequence.close()
        sequence.close()
        session.close()
        session.close()
        for use in (lambda: sequence.begin(), lambda: sequence.rows, lambda: sequence.save(),
                    lambda: session.stats(), lambda: step[0], lambda: sequence.suspend_wanted,
                    lambda: session.open(model), lambda: session.wanted_back_bytes):
            with self.assertRaisesRegex(kvasir.ClosedError, "closed|over"):
                use()
        del session, sequence, step, view
        gc.collect()
        np.testing.assert_array_equal(k, wanted)
        np.testing.assert_array_equal(late.v, rows_of(0, late.rows, 0, 1))
        np.testing.assert_array_equal(late.tokens, prompt.tokens[:late.rows])
        self.assertEqual(recent.k.shape, (1, HEADS, DIM))
        float(recent.k.sum())  # nobody's any more, and mapped

    def test_arrays_outlive_the_extent_that_takes_their_slot(self):
        model = self.register()
        held = []
        for salt in range(12):
            with self.session.open(model, "full") as sequence:
                step = sequence.begin(16)
                write_rows(step)
                held.append((step[0].recent[0].k, step.count))
        gc.collect()
        for k, _ in held:
            float(k.sum())

    def test_who_closes_a_session_that_others_use_ends_their_next_call(self):
        session = self.daemon.connect()
        model = session.register_model(self.register().spec)
        sequences = [session.open(model, "full") for _ in range(3)]
        begun, ended = threading.Barrier(5), []

        def use(call):
            call()
            begun.wait()
            try:
                while True:
                    call()
            except kvasir.ClosedError:
                ended.append(True)
        calls = [session.stats] + [
            lambda one=one: one.append([1, 2, 3], write_rows) for one in sequences]
        threads = [threading.Thread(target=use, args=[call]) for call in calls]
        for thread in threads:
            thread.start()
        begun.wait()
        session.close()
        for thread in threads:
            thread.join()
        self.assertEqual(len(ended), 4)

    def test_a_sequence_closed_by_its_session_is_closed(self):
        with self.daemon.connect() as session:
            sequence = session.open(session.register_model(self.register().spec), "full")
        self.assertTrue(sequence.closed)
        sequence.close()

    def test_a_forked_child_is_refused_and_harms_nobody(self):
        model, prompt = self.publish()
        sequence = self.session.open(model, "full", prompt=prompt)
        step = sequence.begin()
        memory = step[0].kept[0].k.base
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            said = b""
            try:
                for use in (lambda: sequence.begin(), lambda: self.session.stats(), lambda: step[1],
                            lambda: memory.numpy(), lambda: self.session.open(model)):
                    try:
                        use()
                    except kvasir.ClosedError:
                        said += b"."
                sequence.close()
                self.session.close()
                del sequence, step, memory
                gc.collect()
                said += b"end"
            finally:
                os.write(write, said)
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            self.assertEqual(pipe.read(), b".....end")
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        write_rows(step)
        sequence.commit([5])  # the parent's is as it was
        self.assertEqual(sequence.rows, step.row + 1)
        self.assertEqual(memory.numpy()[0, 0, 1], 1)


class ForgottenTest(DaemonTest):
    def setUp(self):
        super().setUp()
        gc.disable()  # nothing waits for it
        self.addCleanup(gc.enable)

    def test_what_nobody_closes_is_given_back(self):
        model = self.register()
        for _ in range(3):
            sequence = self.session.open(model, "full")
            sequence.append(tokens_of(64), write_rows)
            step = sequence.begin()
            view = step[0]
            view.visible(step.row)
        del sequence, step, view
        stats = self.session.stats()
        self.assertEqual((stats.sequences, stats.held_bytes), (0, 0))


class WaitingTest(unittest.TestCase):
    def test_other_threads_run_while_a_call_waits(self):
        # The second thread is what lets the first one go on: were the interpreter's lock held,
        # nobody would accept, and the call would end at its deadline.
        with tempfile.TemporaryDirectory() as folder, \
                socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(f"{folder}/data.sock")
            listener.listen()

            def hang_up():
                connection, _ = listener.accept()
                connection.recv(4096)  # the greeting: its sender waits for the answer now
                connection.close()
            thread = threading.Thread(target=hang_up)
            thread.start()
            with self.assertRaises(kvasir.KvasirError) as caught:
                kvasir.Session(control_socket=f"{folder}/control.sock",
                               data_socket=f"{folder}/data.sock", deadline_s=60)
            thread.join()
            self.assertNotIsInstance(caught.exception, kvasir.DeadlineExceededError)

    def test_a_daemon_that_says_nothing_is_a_deadline(self):
        with tempfile.TemporaryDirectory() as folder, \
                socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(f"{folder}/data.sock")
            listener.listen()
            with self.assertRaises(kvasir.DeadlineExceededError) as caught:
                kvasir.Session(control_socket=f"{folder}/control.sock",
                               data_socket=f"{folder}/data.sock", deadline_s=0.05)
            self.assertIsInstance(caught.exception, TimeoutError)

    def test_a_daemon_that_dies_is_unavailable_and_its_memory_readable(self):
        daemon = Daemon()
        self.addCleanup(daemon.stop)
        session = daemon.connect(deadline_s=5)
        self.addCleanup(session.close)
        sequence = session.open(session.register_model(_spec()), "full")
        step = sequence.begin(4)
        write_rows(step)
        k = step[0].recent[0].k
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
        with self.assertRaisesRegex(ValueError, "of the body"):
            with sequence:  # whose close fails, too
                raise ValueError("of the body")
        with self.assertRaises(kvasir.UnavailableError) as caught:
            session.stats()
        self.assertIsInstance(caught.exception, ConnectionError)
        np.testing.assert_array_equal(k[:4], rows_of(0, 4, 0, 0))


def _spec():
    from support import spec
    return spec()


class LibraryTest(unittest.TestCase):
    def test_what_is_no_library_is_an_import_error(self):
        with self.assertRaisesRegex(ImportError, "no libkvasir"):
            _abi.Library("libc.so.6")


if __name__ == "__main__":
    main()
