// Retentions of every kind that can be saved and shared.
#ifndef KVASIR_TESTS_CORE_EVERY_RETENTION_H_
#define KVASIR_TESTS_CORE_EVERY_RETENTION_H_

#include <array>

namespace kvasir::core::testing {

inline constexpr std::array kEveryRetention = {
    "full",
    "full:positions=unrotated",
    "full+int8:rows=32,recent=5",
    "full+as_written/int8:n_sink=0,recent=0",
    "window:size=24",
    "sinks:size=3|separators|window:size=20",
    "sinks:size=2|stride:size=5|window:size=9",
    "streamingllm:start_size=3,recent_size=10,positions=original",
    "streamingllm:start_size=4,recent_size=40",
    "streamingllm:start_size=3,recent_size=90,positions=original+int8:rows=32",
    "sepllm:form=static,init_cache_size=4,local_size=33",
    "sepllm:form=static,init_cache_size=4,local_size=9+int8:rows=32",
    "sepllm:form=sepcache,init_cache_size=4,sep_cache_size=8,local_size=16,cache_size=48",
    "fixllm:init_cache_size=4,local_size=16,delta=5",
    "knorm:max_capacity=24,recent_size=3",
    "keydiff:max_capacity=24,recent_size=3"};

}  // namespace kvasir::core::testing

#endif  // KVASIR_TESTS_CORE_EVERY_RETENTION_H_
