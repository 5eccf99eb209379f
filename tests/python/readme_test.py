"""The README's example runs as it stands."""
import contextlib
import functools
import io
import pathlib
import re
import unittest.mock

import kvasir
from support import DaemonTest, main

README = pathlib.Path(__file__).resolve().parents[2] / "client" / "python" / "README.md"


class ReadmeTest(DaemonTest):
    def test_the_engine_runs_and_attaches_the_second_time(self):
        engine = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL).group(1)
        session = functools.partial(kvasir.Session, control_socket=self.daemon.control,
                                    data_socket=self.daemon.data)
        said = []
        for _ in range(2):
            out = io.StringIO()
            with unittest.mock.patch("kvasir.Session", session), contextlib.redirect_stdout(out):
                exec(compile(engine, str(README), "exec"), {})
            said.append(out.getvalue().splitlines())
        self.assertEqual(said[0][0], "attached 0 rows of a prefix")
        attached = int(said[1][0].split()[1])
        self.assertGreaterEqual(attached, 480)
        visible = int(said[0][1].split()[0])
        self.assertLess(visible, 400)
        self.assertEqual(said[1][2], "1 prefix hits")


if __name__ == "__main__":
    main()
