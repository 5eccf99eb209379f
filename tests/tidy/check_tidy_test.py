#!/usr/bin/env python3
"""Seeds one violation of each rule into an empty tree and expects exactly that finding."""
import pathlib
import tempfile
import unittest

import check_tidy

GUARDED = "// Text.\n#ifndef KVASIR_POLICIES_A_H_\n#define KVASIR_POLICIES_A_H_\n{}\n#endif\n"


class CheckTidyTest(unittest.TestCase):
    def findings(self, files):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name, text in files.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)
            for top in {name.split("/")[0] for name in files if "/" in name}:
                if top != "bare":
                    (root / top / "README.md").write_text("x\n")
            return check_tidy.check(root)

    def expect(self, name, text, part):
        found = self.findings({name: text})
        self.assertEqual(len(found), 1, found)
        self.assertIn(part, found[0])

    def test_clean_tree_has_no_findings(self):
        files = {
            "policies/a.h": GUARDED.format('#include "base/error.h"'),
            "policies/a.cc": '// Text.\n#include "policies/a.h"\n\n#include <vector>\n',
            "daemon/control/a.cc": '#include "kvasir/v1/admin.grpc.pb.h"\n#include <grpcpp/grpcpp.h>\n',
            "client/ctl/a.cc": '#include "client/view.h"\n#include "kvasir/v1/admin.pb.h"\n',
            "tests/core/a_test.cc": '#include "daemon/core/x.h"\n#include "client/view.h"\n',
            "engine/a.cc": '#include "client/view.h"\n#include <llama.h>\n',
        }
        self.assertEqual(self.findings(files), [])

    def test_layers(self):
        self.expect("policies/a.cc", '#include "allocator/pool.h"\n', "must not include allocator")
        self.expect("allocator/a.cc", '#include "policies/p.h"\n', "must not include policies")
        self.expect("policies/retrieval/a.cc", '#include "policies/p.h"\n', "must not include policies")
        self.expect("client/a.cc", '#include "daemon/server.h"\n', "must not include daemon")
        self.expect("client/ctl/a.cc", '#include "policies/p.h"\n', "must not include policies")
        self.expect("proto/shm/a.cc", '#include "kernels/gather.h"\n', "must not include kernels")
        self.expect("base/a.cc", '#include "kernels/gather.h"\n', "must not include kernels")
        self.expect("daemon/core/a.cc", '#include "kvasir/v1/a.pb.h"\n', "must not include kvasir")
        self.expect("engine/a.cc", '#include "tests/support/a.h"\n', "must not include tests")

    def test_headers_are_guarded(self):
        for text in ("", "int a;\n", "#include <vector>\n", GUARDED.format("").replace("_A_", "_B_"),
                     "#include <vector>\n" + GUARDED.format("")):
            self.expect("policies/a.h", text, "guarded by KVASIR_POLICIES_A_H_")

    def test_a_source_file_includes_its_header_first(self):
        for text in ('#include <vector>\n#include "policies/a.h"\n', "#include <vector>\n"):
            found = self.findings({"policies/a.h": GUARDED.format(""), "policies/a.cc": text})
            self.assertEqual(len(found), 1, found)
            self.assertIn("the first include is policies/a.h", found[0])

    def test_network_stays_outside(self):
        self.expect("daemon/core/a.cc", "#include <grpcpp/grpcpp.h>\n", "know the network")
        self.expect("policies/a.cc", "#include <google/protobuf/any.h>\n", "know the network")

    def test_pure_policies(self):
        self.expect("policies/a.cc", "#include <chrono>\n", "must stay pure")
        self.expect("policies/retrieval/a.cc", "#include <thread>\n", "must stay pure")

    def test_banned_headers_everywhere(self):
        self.expect("tests/core/a.cc", "#include <ranges>\n", "is banned")
        self.expect("client/a.cc", "#include <absl/synchronization/mutex.h>\n", "is banned")

    def test_lengths(self):
        self.expect("bench/a.cc", "int x;\n" * 401, "over 400 lines")
        self.expect("tests/core/a.cc", "// " + "x" * 98 + "\n", "over 100 columns")

    def test_unfinished_marks(self):
        self.expect("base/a.cc", "// TO" "DO: later\n", "unfinished mark")
        self.expect("deploy/a.sh", "# FIX" "ME\n", "unfinished mark")

    def test_registry_names(self):
        self.expect("docs/a.md", "see https://py" "pi.org/x\n", "package registry")

    def test_readme(self):
        self.expect("bare/a.txt", "x\n", "has a README")


if __name__ == "__main__":
    unittest.main()
