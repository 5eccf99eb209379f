// SelectedText: what a selection policy left of a prompt, for people.
#ifndef KVASIR_ENGINE_SELECTED_TEXT_H_
#define KVASIR_ENGINE_SELECTED_TEXT_H_

#include <cstdint>
#include <span>
#include <string>

#include <absl/status/statusor.h>

#include "engine/tokenizer.h"

namespace kvasir::engine {

// The texts of the tokens at `rows` of `prompt`, in order, with " … " where tokens are left out; a
// character may be cut there. REQUIRES: rows ascend and are below prompt.size().
// Errors: kInvalidArgument for a token id beyond the vocabulary.
absl::StatusOr<std::string> SelectedText(const Tokenizer& tokenizer,
                                         std::span<const uint32_t> prompt,
                                         std::span<const uint32_t> rows);

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_SELECTED_TEXT_H_
