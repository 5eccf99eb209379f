// What an engine says of a prompt, and what it is told of its beginning. Plain values.
#ifndef KVASIR_CLIENT_PREFIX_H_
#define KVASIR_CLIENT_PREFIX_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace kvasir {

// What is left of a cached prefix, the better the larger.
enum class PrefixQuality {
  kCompacted = 1,  // rows were dropped
  kQuantised = 2,  // every row, encoded
  kFull = 3,       // every row as written
};

// What the token of a row stands for beyond its id, such as an image.
struct TokenDigest {
  uint64_t row = 0;
  std::string digest;  // 1 to 128 bytes
};

struct PrefixOptions {
  std::vector<uint32_t> tokens;      // of the prompt, from row 0
  std::vector<TokenDigest> digests;  // ascending by row
  std::string salt;                  // sequences of other salts share nothing
  uint64_t rows_max = 0;             // no more are wanted; 0: as many as there are tokens
  // Also from other forms than `retention` makes that are at least this good, where they are
  // longer.
  std::optional<PrefixQuality> least_quality;
};

// A form of a prefix that is cached.
struct PrefixForm {
  std::string retention;
  PrefixQuality quality = PrefixQuality::kFull;
  uint64_t rows = 0;
  bool is_public = false;
  std::string place;                // "memory", a device's pool, "disk" or "remote"
  std::string condensed_from = {};  // form that the daemon has brought into `retention`; "": none
};

}  // namespace kvasir

#endif  // KVASIR_CLIENT_PREFIX_H_
