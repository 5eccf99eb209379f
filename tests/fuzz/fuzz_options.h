// Options of libFuzzer that belong to a target and not to who runs it.
#ifndef KVASIR_TESTS_FUZZ_FUZZ_OPTIONS_H_
#define KVASIR_TESTS_FUZZ_FUZZ_OPTIONS_H_

#include <string>
#include <vector>

namespace kvasir::fuzz {

// For LLVMFuzzerInitialize(), once. It overrules the command line.
inline int AddOption(const char* option, int* argc, char*** argv) {
  static std::string kept;
  static std::vector<char*> all;
  kept = option;
  all.assign(*argv, *argv + *argc);
  all.push_back(kept.data());
  *argc = static_cast<int>(all.size());
  all.push_back(nullptr);
  *argv = all.data();
  return 0;
}

}  // namespace kvasir::fuzz

#endif  // KVASIR_TESTS_FUZZ_FUZZ_OPTIONS_H_
