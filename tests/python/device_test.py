"""Rows on a device from Python: on host memory that stands in for one, which no pointer can follow."""
import os
import unittest.mock

import numpy as np

import kvasir
from support import DIM, HEADS, LAYERS, DaemonTest, main, rows_of, tokens_of, write_rows

STREAMING = "streamingllm:start_size=4,positions=original,recent_size=30"


class DeviceTest(DaemonTest):
    DEVICE = "host"

    def setUp(self):
        super().setUp()
        self.device = kvasir.Device("host-gpu0")
        self.addCleanup(self.device.close)
        self.there = self.daemon.connect(devices=[self.device])
        self.addCleanup(self.there.close)

    def check_rows(self, view, layer, row, here=False):
        """All that the query of the row sees is what was written: kept rows and recent ones."""
        positions = [int(p) for run in view.kept for p in run.positions]
        positions += [p for first, end in view.recent_spans(row) for p in range(first, end)]
        visible = view.visible(row)
        for plane, pieces in enumerate(([piece.k for piece in visible],
                                        [piece.v for piece in visible])):
            for piece in pieces:
                self.assertIsInstance(piece, np.ndarray if here else kvasir.DeviceRows)
                self.assertEqual((piece.shape[1:], piece.dtype), ((HEADS, DIM), np.float32))
            np.testing.assert_array_equal(
                np.concatenate([piece if here else piece.numpy() for piece in pieces]),
                np.concatenate([rows_of(p, 1, layer, plane) for p in positions]))
        return positions

    def test_rows_come_back_as_from_host_memory(self):
        model = self.register(self.there, pool="gpu0")
        self.assertIs(model.device, self.device)
        host = self.register(self.there)
        self.assertIsNone(host.device)
        for retention in ("full", "sepllm:local_size=32", STREAMING):
            with self.subTest(retention), self.there.open(model, retention) as sequence, \
                    self.there.open(host, retention) as beside:
                while sequence.rows < 150:
                    step = sequence.begin(7)
                    write_rows(step)
                    for layer, view in enumerate(step):
                        seen = self.check_rows(view, layer, step.row + step.count - 1)
                    sequence.commit(tokens_of(150)[step.row:step.row + step.count])
                beside.append(tokens_of(150), write_rows)
                last = sequence.begin()
                self.assertIsInstance(beside.begin()[0].recent[0].k, np.ndarray)
                if retention == "full":
                    self.assertEqual(seen, list(range(len(seen))))
                else:
                    self.assertLess(len(seen), 150)
                    self.assertFalse(last[0].kept[0].k.writable)
                sequence.truncate(149)
        stats = self.there.stats()
        self.assertEqual(stats.tenant, "test")

    def test_a_prefix_serves_the_device_and_host_memory(self):
        prompt = kvasir.Prompt(tokens_of(65))
        with self.there.open(self.register(self.there, pool="gpu0"), "full", prompt=prompt) as first:
            first.append(tokens_of(64), write_rows)
            first.publish_prefix()
        with kvasir.Device("host-gpu0") as device, \
                self.daemon.connect(devices=[device]) as session, \
                session.open(self.register(session, pool="gpu0"), "full", prompt=prompt) as second:
            self.assertEqual(second.rows, 64)
            step = second.begin()
            write_rows(step)
            for layer, view in enumerate(step):
                self.assertEqual(self.check_rows(view, layer, 64), list(range(65)))
            self.assertFalse(step[0].kept[0].k.writable)
        with self.there.open(self.register(self.there), "full", prompt=prompt) as in_host_memory:
            self.assertEqual(in_host_memory.rows, 64)
            step = in_host_memory.begin()
            write_rows(step)
            for layer, view in enumerate(step):
                self.assertEqual(self.check_rows(view, layer, 64, here=True), list(range(65)))

    def test_rows_are_taken_in_parts_and_written_whole(self):
        model = self.register(self.there, pool="gpu0")
        with self.there.open(model, STREAMING) as sequence:
            step = sequence.begin(5)
            keys = step[1].recent[0].k
            self.assertEqual(len(keys), sequence.slots_per_block)
            self.assertTrue(keys.writable)
            keys[1:4].write(rows_of(1, 3, 1, 0))
            np.testing.assert_array_equal(keys[2:4].numpy(), rows_of(2, 2, 1, 0))
            np.testing.assert_array_equal(keys[-15:3].numpy(), rows_of(1, 2, 1, 0))
            self.assertEqual(keys[4:4].numpy().shape, (0, HEADS, DIM))
            keys[4:2].write(np.empty((0, HEADS, DIM), np.float32))
            for bad in (3, slice(0, 4, 2)):
                with self.assertRaises(TypeError):
                    keys[bad]
            with self.assertRaisesRegex(ValueError, "expected=\\(1, 2, 8\\)"):
                keys[:1].write(rows_of(0, 2, 0, 0))
            # Nobody takes them for an array, or for a GPU's.
            self.assertFalse(hasattr(keys, "__cuda_array_interface__"))
            self.assertFalse(hasattr(keys, "__array_interface__"))
            with unittest.mock.patch.object(self.device, "is_cuda", True):
                there = keys[1:].__cuda_array_interface__
                self.assertEqual(there["data"], (keys.address + keys.strides[0], False))
                self.assertEqual((there["shape"], there["typestr"]), (keys[1:].shape, "<f4"))
            write_rows(step)
            sequence.commit(tokens_of(step.count))
            sequence.append(tokens_of(100), write_rows)
            kept = sequence.begin()[0].kept[0]
            with self.assertRaises(kvasir.FailedPreconditionError):
                kept.k.write(kept.k.numpy())

    def test_rows_outlive_their_session_and_not_their_device(self):
        device = kvasir.Device("host-gpu0")
        session = self.daemon.connect(devices=[device])
        sequence = session.open(self.register(session, pool="gpu0"), "full")
        step = sequence.begin(3)
        write_rows(step)
        keys = step[0].recent[0].k[:3]
        session.close()
        np.testing.assert_array_equal(keys.numpy(), rows_of(0, 3, 0, 0))
        device.close()
        self.assertTrue(device.closed)
        for call in (keys.numpy, lambda: keys.write(rows_of(0, 3, 0, 0)),
                     lambda: self.daemon.connect(devices=[device])):
            with self.assertRaisesRegex(kvasir.ClosedError, "device is closed"):
                call()
        device.close()

    def test_a_session_keeps_a_device_that_is_closed(self):
        device = kvasir.Device("host-gpu0")
        with self.daemon.connect(devices=[device]) as session:
            model = self.register(session, pool="gpu0")
            sequence = session.open(model, "full")
            device.close()
            self.assertEqual(sequence.begin(2).count, 2)
            with self.assertRaises(kvasir.ClosedError):
                write_rows(sequence.begin(2))
            sequence.close()

    def test_a_child_of_fork_has_no_device(self):
        model = self.register(self.there, pool="gpu0")
        with self.there.open(model, "full") as sequence:
            keys = sequence.begin(1)[0].recent[0].k
            child = os.fork()
            if child == 0:
                try:
                    keys.numpy()
                except kvasir.ClosedError:
                    os._exit(7)
                os._exit(1)
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 7)

    def test_bad_input_is_named(self):
        for name, error, text in (
                ("tpu:0", kvasir.InvalidArgumentError, "device=tpu:0"),
                ("", kvasir.InvalidArgumentError, "expected=cuda:N"),
                ("host-", kvasir.InvalidArgumentError, "min=6"),
                ("GPU-00000000-0000-0000-0000-000000000000", kvasir.KvasirError,
                 "no CUDA|no GPU|CUDA")):
            with self.subTest(name), self.assertRaisesRegex(error, text):
                kvasir.Device(name)
        with self.assertRaisesRegex(kvasir.InvalidArgumentError, "twice"):
            self.daemon.connect(devices=[self.device, self.device])
        with self.assertRaisesRegex(kvasir.NotFoundError, "known=gpu0"):
            self.register(self.there, pool="gpu1")
        with self.assertRaises(kvasir.InvalidArgumentError):
            self.register(self.there, pool="x" * 65)
        with self.assertRaisesRegex(kvasir.FailedPreconditionError, "uuid=host-gpu0"):
            self.register(self.session, pool="gpu0")
        with kvasir.Device("host-other") as other, \
                self.daemon.connect(devices=[other]) as session:
            with self.assertRaisesRegex(kvasir.FailedPreconditionError, "uuid=host-gpu0"):
                self.register(session, pool="gpu0")
        model = self.register(self.there, pool="gpu0")
        for retention in ("h2o", "full+int8"):
            with self.subTest(retention), self.assertRaises(kvasir.KvasirError):
                self.there.open(model, retention)

    def test_layers_are_all_on_the_device(self):
        model = self.register(self.there, pool="gpu0")
        self.assertEqual([shape.device for shape in model.shapes], [self.device] * LAYERS)


if __name__ == "__main__":
    main()
