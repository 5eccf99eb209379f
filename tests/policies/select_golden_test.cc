// Runs every case of the golden sets of a folder (NAME.tsv with NAME.bin) through selection and
// retrieval, and prints how many there were of each algorithm. Folder: environment variable
// KVASIR_GOLDEN_DIR, else the project's own copies. Exit status 1 for a case that differs, an
// unknown algorithm, a malformed set.
#include "tests/policies/select_golden.h"

#include <cstdio>
#include <exception>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>

#include <fmt/format.h>

namespace kvasir::testing {
namespace {

using Runner = void (*)(const GoldenCase&);

const std::map<std::string, Runner>& Runners() {
  static const std::map<std::string, Runner> runners = {
      {"gemfilter", RunGemFilter}, {"snapkv", RunSnapKv}, {"h2o", RunH2o},
      {"streaming", RunStreaming}, {"infllm", RunInfLlm}, {"knorm", RunKnorm},
      {"keydiff", RunKeyDiff},     {"tova", RunTova},     {"rerotate", RunRerotate},
  };
  return runners;
}

// Cases that failed.
int RunSet(const std::filesystem::path& path) {
  std::map<std::string, int> ran;
  int failed = 0;
  for (const GoldenCase& test : ReadGoldenSet(path)) {
    try {
      const auto runner = Runners().find(test.algorithm);
      if (runner == Runners().end()) {
        throw std::runtime_error("unknown algorithm " + test.algorithm);
      }
      runner->second(test);
      ++ran[test.algorithm];
    } catch (const std::exception& error) {
      fmt::print(stderr, "FAILED {}: case {}: {}\n", path.string(), test.name, error.what());
      ++failed;
    }
  }
  for (const auto& [algorithm, cases] : ran) {
    fmt::print("{}: {} {} cases\n", path.filename().string(), cases, algorithm);
  }
  return failed;
}

int Main() {
  int failed = 0;
  try {
    const GoldenFolder folder = FindGoldenFiles(KVASIR_GOLDEN_DEFAULT);
    if (folder.selection.empty()) fmt::print("no *.tsv in the folder: nothing of selection\n");
    for (const auto& path : folder.selection) failed += RunSet(path);
  } catch (const std::exception& error) {
    fmt::print(stderr, "FAILED {}\n", error.what());
    return 1;
  }
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace kvasir::testing

int main() { return kvasir::testing::Main(); }
