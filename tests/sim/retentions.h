// The retentions that simulated engines ask for, and what each lets a query see, by the textbook.
#ifndef KVASIR_TESTS_SIM_RETENTIONS_H_
#define KVASIR_TESTS_SIM_RETENTIONS_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace kvasir::sim {

struct Retention {
  std::string spec;
  uint64_t init = 0;  // first rows that stay
  uint64_t window = ~uint64_t{0};
  bool separators = false;
  // Decided by scores: which rows stay is not known here, but how many at most, and that the last
  // `window` ones do.
  bool scored = false;
  uint64_t visible_max = ~uint64_t{0};
  bool can_be_saved = true;
  uint64_t prompt_rows = 0;
  // Of the second layer, which has a lane of its own then; no window: as the first.
  uint64_t second_init = 0, second_window = 0;

  // Rows that the query of `row` sees in the layer, ascending, into `rows`. Not for scored ones.
  void Visible(std::span<const uint32_t> tokens, uint64_t row, uint32_t layer,
               std::vector<uint64_t>* rows) const {
    const bool second = layer == 1 && second_window != 0;
    const uint64_t first = second ? second_init : init, last = second ? second_window : window;
    rows->clear();
    for (uint64_t j = 0; j <= row; ++j) {
      const bool separator = separators && (tokens[j] == 1 || tokens[j] == 2);
      if (j < first || separator || row - j < last) rows->push_back(j);
    }
  }
};

inline const std::vector<Retention>& Retentions() {
  constexpr uint64_t kAll = ~uint64_t{0};
  static const std::vector<Retention> retentions = {
      {"full"},
      {"streamingllm:start_size=3,recent_size=10,positions=original", 3, 10},
      {"streamingllm:start_size=4,recent_size=40,positions=original", 4, 40},
      {"window:size=24", 0, 24},
      {"sinks:size=2|window:size=17", 2, 17},
      {"sepllm:form=static,init_cache_size=2,local_size=5", 2, 5, true},
      {"sepllm:form=static,init_cache_size=4,local_size=33", 4, 33, true},
      {"full+int8:rows=32,recent=5"},
      {"full+as_written/int8:n_sink=0,recent=0"},
      {"streamingllm:start_size=3,recent_size=90,positions=original+int8:rows=32", 3, 90},
      {"sepllm:form=static,init_cache_size=4,local_size=9+int8:rows=32", 4, 9, true},
      {"streamingllm:start_size=3/5,recent_size=12/37,positions=original", 3, 12, false, false,
       kAll, true, 0, 5, 37},
      {"h2o:hh_size=6,recent_size=4,evict_interval=3", 0, 4, false, true, 13, false},
      {"sinks:size=2|h2o:hh_size=20,recent_size=1,evict_interval=1", 0, 1, false, true, 22, false},
      {"tova:max_capacity=9,evict_interval=1", 0, 1, false, true, 10, false},
      {"snapkv:window_size=4,max_capacity_prompt=30,kernel_size=3", 0, 1, false, true, kAll, false,
       57},
      {"knorm:max_capacity=12,recent_size=2", 0, 2, false, true},
      {"separators|keydiff:max_capacity=24,recent_size=3", 0, 3, false, true},
  };
  return retentions;
}

// Of a model with so many layers, or `full` where it has too few.
inline const Retention& Fitting(const Retention& retention, uint32_t layers) {
  return retention.second_window != 0 && layers < 2 ? Retentions().front() : retention;
}

}  // namespace kvasir::sim

#endif  // KVASIR_TESTS_SIM_RETENTIONS_H_
