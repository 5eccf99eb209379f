// Which retentions are compared when nobody says which.
#ifndef KVASIR_ENGINE_COMPARE_GRID_H_
#define KVASIR_ENGINE_COMPARE_GRID_H_

#include <cstdint>
#include <string>
#include <vector>

namespace kvasir::engine {

// Encodings with every token, with a window, and policies as written: a look at the whole field.
std::vector<std::string> DefaultRetentions();

// Retentions x encodings x bits for a search on texts of `tokens` rows: windows are parts of them,
// so that a shorter text loses the same share. The i-th is the same candidate at every length.
std::vector<std::string> RetentionGrid(uint64_t tokens);

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_COMPARE_GRID_H_
