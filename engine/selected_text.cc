#include "engine/selected_text.h"

#include "base/status_macros.h"

namespace kvasir::engine {
namespace {

constexpr char kGap[] = " \xE2\x80\xA6 ";  // an ellipsis

}  // namespace

absl::StatusOr<std::string> SelectedText(const Tokenizer& tokenizer,
                                         std::span<const uint32_t> prompt,
                                         std::span<const uint32_t> rows) {
  std::string text;
  uint64_t next = 0;
  for (const uint32_t row : rows) {
    if (row != next) text += kGap;
    KVASIR_ASSIGN_OR_RETURN(const std::string piece, tokenizer.Piece(prompt[row]));
    text += piece;
    next = row + uint64_t{1};
  }
  if (next != prompt.size()) text += kGap;
  return text;
}

}  // namespace kvasir::engine
