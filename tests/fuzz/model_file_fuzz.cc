// Model files: any bytes give a model or an error, and never end the process.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "engine/gguf_model.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const int fd = ::memfd_create("model", 0);
  if (fd < 0 || ::write(fd, data, size) != static_cast<ssize_t>(size)) std::abort();
  (void)kvasir::engine::GgufModel::Load("/proc/self/fd/" + std::to_string(fd),
                                        kvasir::engine::WeightsMode::kAsStored);
  ::close(fd);
  return 0;
}
