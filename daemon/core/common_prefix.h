// CommonPrefix: the longest row at which every member of a request group can go on.
//
// A prefix of which every row stays as written can be gone on from behind any chunk, any other at
// its own row alone, and each member may find several: so the answer is not the least of what each
// finds, which one of them may be unable to go on from. The row is lowered to the longest that one
// member has there, member by member, until all have it.
//
// Pure but for what it reads; not thread-safe. Cost: each cache and form is walked once, O(chunks
// of the prompt), beside a step for each row that is tried.
#ifndef KVASIR_DAEMON_CORE_COMMON_PREFIX_H_
#define KVASIR_DAEMON_CORE_COMMON_PREFIX_H_

#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "daemon/core/kv_core_types.h"
#include "daemon/core/prefix_cache.h"

namespace kvasir::core {

class CommonPrefix {
 public:
  // `tokens` must outlive it.
  explicit CommonPrefix(std::span<const TokenId> tokens) : tokens_(tokens) {}

  // What a member may go on from passes `fits`, which is told the form as well.
  using Fits = std::function<bool(const Snapshot&, const ChainKey& form)>;
  // `form`: the one that it asked for.
  void AddMember(const ChainKey& form, Fits fits) {
    members_.push_back({form, std::move(fits), {}});
  }
  // A form in a cache where the last member may find the prompt. `place` says all but the hit;
  // `cache` and the chain must outlive this. REQUIRES: a member.
  void AddPlace(const PrefixCache& cache, PrefixMatchOf place);

  // Lowers `rows_max` to the longest row that all have; 0: there is none.
  uint64_t Find(uint64_t rows_max);
  // What each member goes on from at the row that Find() returned: in memory rather than in a tier,
  // then what it asked for, then the best, then what was added first. REQUIRES: it was not 0.
  std::vector<PrefixMatchOf> Matches() const;

 private:
  struct Place {
    const PrefixCache* cache = nullptr;
    PrefixMatchOf match;  // the longest at the row that was last asked for
    bool asked = false;
  };
  struct Member {
    ChainKey form;
    Fits fits;
    std::vector<Place> places;
  };
  // Larger: rather gone on from.
  static int RankOf(const Member& member, const PrefixMatchOf& match);
  // The longest rows of the member, at most `rows`.
  uint64_t Longest(Member& member, uint64_t rows) const;

  std::span<const TokenId> tokens_;
  std::vector<Member> members_;
  uint64_t rows_ = 0;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_COMMON_PREFIX_H_
