// SlotFile: a file of llama_state_seq_save_file(), as llama-server saves a slot.
#ifndef KVASIR_CLIENT_LLAMA_CPP_SLOT_FILE_H_
#define KVASIR_CLIENT_LLAMA_CPP_SLOT_FILE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "client/llama_cpp/state_image.h"
#include "client/llama_cpp/state_layout.h"

namespace kvasir::llama_cpp {

struct SlotFile {
  uint32_t version = 0;  // llama.cpp's, of the file
  std::vector<uint32_t> tokens;
  StateLayout layout;
  StateImage image;  // with the rows
};

// Nothing with the reason in `error`. Cost: the file's size in memory.
std::optional<SlotFile> ReadSlotFile(const std::string& path, std::string* error);

// Writes a file of that version beside `path` and renames it; "" or the reason. `image` has the
// rows.
std::string WriteSlotFile(const std::string& path, uint32_t version,
                          std::span<const uint32_t> tokens, const StateImage& image);

}  // namespace kvasir::llama_cpp

#endif  // KVASIR_CLIENT_LLAMA_CPP_SLOT_FILE_H_
