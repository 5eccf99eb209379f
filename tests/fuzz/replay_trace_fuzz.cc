// Traces of kvasir-replay: any text is refused, or gives requests whose blocks are all there.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <string>

#include "replay/trace.h"
#include "tests/fuzz/fuzz_options.h"

// Two seeds are 40 KB long, for what is nested deeply: by them libFuzzer would make all inputs as
// long. As regressions they are read whole.
extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  return kvasir::fuzz::AddOption("-max_len=2048", argc, argv);
}

// The first byte chooses the tokens of a block; the file is what follows.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const uint32_t block_tokens = 1U << (data[0] % 10U);
  std::istringstream in(std::string(reinterpret_cast<const char*>(data) + 1, size - 1));
  const absl::StatusOr<kvasir::replay::Trace> trace = kvasir::replay::Trace::Read(in, block_tokens);
  if (!trace.ok()) return 0;
  size_t blocks = 0;
  for (size_t i = 0; i < trace->requests(); ++i) blocks += trace->request(i).chain.size();
  if (blocks != trace->accesses().size() || trace->unique_blocks() > blocks) std::abort();
  return 0;
}
