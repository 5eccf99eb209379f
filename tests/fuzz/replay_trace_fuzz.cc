// Traces of kvasir-replay: any text is refused, or gives requests whose blocks are all there.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <string>

#include "replay/trace.h"

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
