#!/usr/bin/env python3
"""check_docs.py finds what it is there to find, and mends quotes."""
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import check_docs  # noqa: E402  (its folder must be on the path first)

CODE = "int a;\n// [loop]\nint b;\n// [end]\n"
PAGE = "[good](code.h) [bad](gone.md)\n<!-- quote: code.h [loop] -->\n```cpp\nint c;\n```\nend\n"


class CheckDocsTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = pathlib.Path(self.folder.name)
        (self.root / "code.h").write_text(CODE)
        (self.root / "page.md").write_text(PAGE)

    def test_finds_dead_links_and_stale_quotes(self):
        self.assertEqual(
            check_docs.check(self.root),
            ["page.md:1: link leads nowhere: gone.md", "page.md:2: differs from code.h [loop]"],
        )

    def test_fix_replaces_the_quote_and_nothing_else(self):
        check_docs.check(self.root, fix=True)
        self.assertEqual((self.root / "page.md").read_text(), PAGE.replace("int c;", "int b;"))

    def test_a_quote_of_nothing_is_found(self):
        (self.root / "page.md").write_text(PAGE.replace("[loop]", "[other]"))
        self.assertIn("page.md:2: nothing to quote or no block: code.h", check_docs.check(self.root))

    def test_the_table_of_folders_is_that_of_the_tidy_check(self):
        (self.root / "page.md").unlink()
        (self.root / "tests/tidy").mkdir(parents=True)
        (self.root / "docs").mkdir()
        (self.root / "tests/tidy/check_tidy.py").write_text(
            'ALLOWED = {"base": {"base"}, "core": {"core", "base", "kvasir"}, "new": {"base"}}\n'
        )
        page = self.root / "docs/architecture.md"
        page.write_text(
            "| `base` | nothing of ours |\n| `core` | base (all), generated gRPC code; no lock |\n"
        )
        new = "docs/architecture.md:1: new may include base"
        self.assertEqual(check_docs.check(self.root), [new])
        page.write_text("| `base` | core |\n| `core` | base |\n| `new` | base |\n")
        self.assertEqual(
            check_docs.check(self.root),
            [
                "docs/architecture.md:1: base may include nothing of ours",
                "docs/architecture.md:2: core may include base, kvasir",
            ],
        )


if __name__ == "__main__":
    unittest.main()
