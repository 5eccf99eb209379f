// The daemon's configuration: any bytes give a configuration or an error that names file, line and
// key; what is accepted survives a round trip through its own text.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "daemon/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<kvasir::Config> config = kvasir::ParseConfig(text, "fuzz.toml", nullptr);
  if (!config.ok()) return 0;
  const absl::StatusOr<kvasir::Config> again =
      kvasir::ParseConfig(kvasir::EffectiveConfigToml(*config), "again.toml", nullptr);
  if (!again.ok() || *again != *config) std::abort();
  return 0;
}
