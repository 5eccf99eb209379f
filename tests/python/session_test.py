"""Sessions, sequences and views from Python against a daemon."""
import threading
import unittest.mock

import numpy as np

import kvasir
from support import DIM, HEADS, LAYERS, VOCABULARY, DaemonTest, main, rows_of, tokens_of, write_rows

STREAMING = "streamingllm:start_size=4,positions=original,recent_size="


class SequencesTest(DaemonTest):
    def check_rows(self, step):
        """All that the query of the step's last row sees is what was written."""
        seen = set()
        row = step.row + step.count - 1
        for layer, view in enumerate(step):
            rows = []
            for run in view.kept:
                for i, position in enumerate(run.positions):
                    np.testing.assert_array_equal(run.k[i], rows_of(int(position), 1, layer, 0)[0])
                    np.testing.assert_array_equal(run.v[i], rows_of(int(position), 1, layer, 1)[0])
                rows += [int(p) for p in run.positions]
            rows += [p for p in view.sticky if p < view.window_first(row)]
            rows += range(view.window_first(row), row + 1)
            visible = view.visible(row)
            self.assertEqual(sum(len(piece.k) for piece in visible), len(rows))
            np.testing.assert_array_equal(
                np.concatenate([piece.v for piece in visible]),
                np.concatenate([rows_of(p, 1, layer, 1) for p in rows]))
            seen.add(tuple(rows))
        self.assertEqual(len(seen), 1, "layers with one policy see the same")
        return seen.pop()

    def test_rows_come_back_under_every_policy_of_tokens(self):
        model = self.register()
        for retention, most in (("full", 301), ("sepllm:local_size=32", 250),
                                (STREAMING + "60", 64)):
            with self.subTest(retention), self.session.open(model, retention) as sequence:
                while sequence.rows < 300:
                    step = sequence.begin(7)
                    write_rows(step)
                    self.assertLessEqual(len(self.check_rows(step)), most)
                    sequence.commit(tokens_of(300)[step.row:step.row + step.count])
                self.assertGreater(sequence.footprint().held_bytes, 0)

    def test_a_prefix_is_attached_in_place(self):
        model, tokens = self.register(), tokens_of(100)
        prompt = kvasir.Prompt(tokens, salt=b"attach")
        with self.session.open(model, "full", prompt=prompt) as sequence:
            self.assertEqual(sequence.rows, 0)
            sequence.append(tokens, write_rows)
            self.assertEqual(sequence.publish_prefix().rows, 100)
        with self.daemon.connect(ring=False) as other:
            again = self.register(other)
            self.assertEqual(again.fingerprint, model.fingerprint)
            form = other.match_prefix(again, prompt)[0]
            self.assertEqual((form.retention, form.quality, form.place),
                             ("full", kvasir.Quality.FULL, "memory"))
            with other.open(again, "full", prompt=prompt) as sequence:
                self.assertGreaterEqual(sequence.rows, 96)
                step = sequence.begin()
                write_rows(step)
                self.check_rows(step)
                self.assertEqual(list(step[0].kept[0].tokens), tokens[:len(step[0].kept[0].tokens)])
            member = kvasir.LeaseMember(again.fingerprint, "full")
            with other.lease_prefix([member], prompt) as lease:
                self.assertGreaterEqual(lease.rows, 96)
                with self.session.open(model, prompt=prompt, lease=lease.id,
                                       hints=kvasir.Hints(predicted_rows=9)) as sequence:
                    self.assertEqual(sequence.rows, lease.rows)
                    self.assertFalse(sequence.suspend_wanted)
        self.assertGreaterEqual(self.session.stats().prefix_hits, 2)

    def test_a_snapshot_outlives_its_sequence(self):
        model = self.register()
        with self.session.open(model, "full") as sequence:
            sequence.append(tokens_of(40), write_rows)
            saved = sequence.save()
        self.assertEqual(saved.rows, 40)
        with self.session.open(model, snapshot=saved) as sequence:
            self.assertEqual((sequence.rows, sequence.retention), (40, "full"))
            self.check_rows_after_one_more(sequence)
            sequence.truncate(40)
            self.assertEqual(sequence.rows, 40)
        self.session.drop_snapshot(saved)
        with self.assertRaises(kvasir.NotFoundError):
            self.session.drop_snapshot(saved.id)

    def check_rows_after_one_more(self, sequence):
        step = sequence.begin()
        write_rows(step)
        self.check_rows(step)
        sequence.commit([3])

    def test_a_batch_is_one_call(self):
        model = self.register()
        sequences = [self.session.open(model, "full") for _ in range(3)]
        steps = kvasir.begin_many(sequences)
        for step in steps:
            write_rows(step)
        errors = kvasir.commit_many(sequences, [1, VOCABULARY, 2])
        self.assertEqual([errors[0], errors[2]], [None, None])
        self.assertIsInstance(errors[1], kvasir.InvalidArgumentError)
        self.assertEqual([one.rows for one in sequences], [1, 0, 1])
        with self.assertRaises(ValueError):
            kvasir.begin_many([sequences[0], sequences[0]])

    def test_steps_go_ahead_of_a_stream(self):
        model, tokens = self.register(), tokens_of(40)
        word = np.zeros(1, np.uint64)
        with self.session.open(model, "full") as sequence:
            for value in range(1, 41):
                step = sequence.begin()
                write_rows(step)
                sequence.commit(tokens[step.row:step.row + 1],
                                done=kvasir.TimelinePoint(word.ctypes.data, value))
                word[0] = value - 1  # the stream is a step behind
            self.assertEqual(sequence.rows, 40)
            timer = threading.Timer(0.05, lambda: word.__setitem__(0, 40))
            timer.start()
            saved = sequence.save()
            timer.join()
            self.assertEqual((saved.rows, int(word[0])), (40, 40))
            self.session.drop_snapshot(saved.id)
            step = sequence.begin()
            write_rows(step)
            self.assertEqual(self.check_rows(step), tuple(range(41)))
            with self.assertRaisesRegex(kvasir.InvalidArgumentError, "done.word"):
                sequence.commit([1], done=kvasir.TimelinePoint(word.ctypes.data + 4, 1))
            self.assertEqual(kvasir.commit_many([sequence], [1],
                                                kvasir.TimelinePoint(word.ctypes.data, 40)), [None])
            self.assertEqual(sequence.rows, 41)

    def test_statistics_policies_and_inspection(self):
        model = self.register()
        self.session.put_token_texts(model, 5, [b"five", b"six"])
        with self.session.open(model, STREAMING + "12") as sequence:
            sequence.append(tokens_of(64), write_rows)
            stats = self.session.stats()
            self.assertEqual((stats.tenant, stats.sequences), ("test", 1))
            self.assertGreater(stats.held_bytes, 0)
            rows = list(self.session.inspect(sequence, layer=LAYERS - 1))
            self.assertEqual([one.row for one in rows], list(range(64)))
            kept = {one.row for one in rows if one.kept}
            self.assertTrue({0, 1, 2, 3, 63} <= kept and 20 not in kept)
            self.assertEqual(rows[0].text, b"five")
        names = {policy.name for policy in self.session.policies()}
        self.assertTrue({"full", "sepllm", "streamingllm", "h2o", "snapkv"} <= names)
        local = next(p for policy in self.session.policies() if policy.name == "sepllm"
                     for p in policy.parameters if p.name == "local_size")
        self.assertEqual(local.type, "integer")

    def test_policies_by_score_get_their_mass(self):
        model = self.register(layers=[kvasir.LayerSpec(HEADS, DIM, DIM, query_heads=4)] * LAYERS)
        with self.session.open(model, "h2o:hh_size=8,recent_size=8,evict_interval=1") as sequence:
            asked = False
            for row, token in enumerate(tokens_of(64)):
                step = sequence.begin()
                write_rows(step)
                for view in step:
                    if view.asks_mass:
                        asked = True
                        rows = view._raw.mass
                        view.add_mass(np.ones((HEADS, rows.kept_rows)) if rows.kept else None,
                                      np.ones((HEADS, rows.recent_rows)))
                        with self.assertRaises(ValueError):
                            view.add_mass(recent=np.ones((HEADS, 12345)))
                sequence.commit([token])
            self.assertTrue(asked)
            self.assertLess(sequence.footprint().kept_rows, 64)

    def test_bf16_rows_are_uint16(self):
        model = self.register(kv_type=kvasir.KvType.BF16)
        with self.session.open(model, "full") as sequence:
            self.assertEqual(sequence.begin()[0].recent[0].k.dtype, np.uint16)

    def test_threads_take_turns(self):
        model = self.register()
        sequence = self.session.open(model, "full")

        def add():
            for _ in range(50):
                with sequence._lock:
                    write_rows(sequence.begin())
                    sequence.commit([4])
        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sequence.rows, 200)


class ErrorsTest(DaemonTest):
    def test_the_environment_names_the_daemon(self):
        control = str(self.daemon.control)
        with unittest.mock.patch.dict("os.environ", {"KVASIR_CONTROL_SOCKET": control}):
            kvasir.Session().close()  # data.sock lies beside it
            with unittest.mock.patch.dict("os.environ", {"KVASIR_DATA_SOCKET": "/nowhere"}):
                with self.assertRaisesRegex(kvasir.KvasirError, "/nowhere"):
                    kvasir.Session()
                kvasir.Session(data_socket=self.daemon.data).close()
        kvasir.Session(control_socket=control).close()

    def test_what_is_wrong_is_named(self):
        model = self.register()
        with self.assertRaisesRegex(kvasir.InvalidArgumentError, "nothing-of-that-name") as caught:
            self.session.open(model, "nothing-of-that-name")
        self.assertEqual(caught.exception.code, kvasir.Code.INVALID_ARGUMENT)
        self.assertIsInstance(caught.exception, ValueError)
        with self.assertRaisesRegex(kvasir.InvalidArgumentError, "weights_digest"):
            self.register(weights_digest=b"")
        sequence = self.session.open(model, "full")
        with self.assertRaisesRegex(kvasir.InvalidArgumentError, "want_rows"):
            sequence.begin(0)
        step = sequence.begin(2)
        for bad in ([VOCABULARY], [1, 2, 3]):
            with self.assertRaises(kvasir.InvalidArgumentError):
                sequence.commit(bad)
        for bad in ([-1], [2**32], [0.5], ["a"], [[1]]):
            with self.assertRaises(ValueError):
                sequence.commit(bad)
        with self.assertRaises(IndexError):
            step[0].write(1, rows_of(0, 2, 0, 0), rows_of(0, 2, 0, 1))
        with self.assertRaises(IndexError):
            step[LAYERS]
        with self.assertRaises(kvasir.InvalidArgumentError):
            sequence.set_hints(kvasir.Hints(priority=101))
        with self.assertRaises(ValueError):
            self.session.open(model, snapshot=b"short")
        for deadline in (0, -1, 1e9):
            with self.assertRaises(ValueError):
                self.daemon.connect(deadline_s=deadline)


class ShortageTest(DaemonTest):
    POOL = "32MiB"

    def test_a_shortage_says_when_to_ask_again(self):
        model = self.register(layers=[kvasir.LayerSpec(8, 128, 128)] * LAYERS)
        for ring in (True, False):
            with self.daemon.connect(ring=ring) as session:
                model = session.register_model(model.spec)
                sequence = session.open(model, "full")
                with self.assertRaises(kvasir.ResourceExhaustedError) as caught:
                    sequence.append([1] * 20000, lambda step: None)
                error = caught.exception
                self.assertEqual(error.code, kvasir.Code.RESOURCE_EXHAUSTED)
                self.assertGreater(error.retry_after_s, 0)
                if not ring:  # the ring's answer has no room for the rest, but its text has
                    self.assertTrue(error.budget)
                    self.assertGreater(error.missing, 0)
                    self.assertTrue(error.holder)


if __name__ == "__main__":
    main()
