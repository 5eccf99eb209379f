// The texts that quality is measured on, as token ids, checked so that numbers can be compared.
//
// Texts are fetched by ./dev into a folder; the catalogue (bench/data/segments.json) pins each by
// sha256, and the ids of each segment as well, so another text or another tokenizer is an error and
// not another number.
#ifndef KVASIR_BENCH_TEXTS_H_
#define KVASIR_BENCH_TEXTS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

#include "engine/tokenizer.h"

#include <nlohmann/json.hpp>

namespace kvasir::bench {

// The catalogue of this source tree, where a program's caller names no other.
extern const char kTextCatalogue[];

// Thread-compatible value.
class Texts {
 public:
  // folder: where the files of the catalogue lie. Errors: kNotFound where `catalogue` cannot be
  // read, kInvalidArgument where it is none, naming the path.
  static absl::StatusOr<Texts> Open(const std::string& catalogue, const std::string& folder);

  // All bytes of a file of the catalogue. Errors: kNotFound where the folder lacks it or the
  // catalogue does, kInvalidArgument for another sha256.
  absl::StatusOr<std::string> File(const std::string& name) const;

  // Ids of a segment. Errors: those of File() and of the tokenizer, kInvalidArgument for ids of
  // another sha256.
  absl::StatusOr<std::vector<uint32_t>> Segment(const std::string& name,
                                                const engine::Tokenizer& tokenizer) const;

 private:
  nlohmann::json catalogue_;
  std::string folder_;
};

// "\r\n" made "\n"; with join_lines also each line break that stands alone made a space.
std::string NormaliseLines(std::string_view text, bool join_lines);

// Without the UTF-8 character that the end of `text` cuts, if it does.
std::string_view WithoutCutCharacter(std::string_view text);

std::string Sha256Hex(std::string_view bytes);

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_TEXTS_H_
