#include "engine/compare_grid.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace kvasir::engine {

std::vector<std::string> DefaultRetentions() {
  return {"full+int8",
          "full+int4",
          "full+tm64:k_bits=4.25,v_bits=4",
          "full+tm64:k_bits=3.25,v_bits=2.75",
          "full+tm64:k_bits=2.25,v_bits=1.75",
          "streamingllm:start_size=4,recent_size=956,positions=original+tm64:k_bits=2,v_bits=1.5",
          "streamingllm:start_size=4,recent_size=636,positions=original+tm32:k_bits=2.5,v_bits=2",
          "streamingllm:start_size=4,recent_size=436,positions=original+tm32:k_bits=2.5,v_bits=2",
          "streamingllm:start_size=4,recent_size=956,positions=original+int4",
          "streamingllm:start_size=4,recent_size=636,positions=original",
          "streamingllm:start_size=4,recent_size=316,positions=original",
          "h2o:hh_size=160,recent_size=160",
          "h2o:hh_size=160,recent_size=160+as_written/rot3",
          "sepllm:init_cache_size=4,local_size=256",
          "sepllm:init_cache_size=4,local_size=128+int4"};
}

std::vector<std::string> RetentionGrid(uint64_t tokens) {
  std::vector<std::string> encodings = {"", "+int8", "+int4", "+int8/int4"};
  for (const auto& [k, v] : {std::pair{5.0, 4.5},
                             {4.25, 4.0},
                             {3.75, 3.25},
                             {3.25, 2.75},
                             {2.75, 2.25},
                             {2.25, 1.75},
                             {1.75, 1.5}}) {
    encodings.push_back(fmt::format("+tm64:k_bits={},v_bits={}", k, v));
  }
  for (const auto& [k, v] : {std::pair{3.0, 2.5}, {2.5, 2.0}, {2.0, 1.5}}) {
    encodings.push_back(fmt::format("+tm32:k_bits={},v_bits={}", k, v));
  }
  std::vector<std::string> grid;
  for (const std::string& encoding : encodings) {
    if (!encoding.empty()) grid.push_back("full" + encoding);
    for (const uint64_t part : {12U, 8U, 6U, 5U, 4U, 3U, 2U}) {  // sixteenths of the text
      grid.push_back(fmt::format("streamingllm:start_size=4,recent_size={},positions=original{}",
                                 std::max(tokens * part / 16, uint64_t{1}), encoding));
    }
  }
  for (const char* encoding : {"", "+int8", "+int4"}) {
    for (const uint64_t part : {32U, 16U, 8U, 4U}) {
      grid.push_back(fmt::format("sepllm:init_cache_size=4,local_size={}{}",
                                 std::max(tokens / part, uint64_t{1}), encoding));
    }
  }
  return grid;
}

}  // namespace kvasir::engine
