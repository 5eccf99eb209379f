#include "daemon/core/common_prefix.h"

#include <algorithm>

namespace kvasir::core {

void CommonPrefix::AddPlace(const PrefixCache& cache, PrefixMatchOf place) {
  members_.back().places.push_back({&cache, std::move(place), false});
}

uint64_t CommonPrefix::Longest(Member& member, uint64_t rows) const {
  uint64_t longest = 0;
  for (Place& place : member.places) {
    PrefixMatchOf& match = place.match;
    if (!place.asked || match.hit.rows > rows) {  // else it is the longest below `rows` as well
      place.asked = true;
      match.hit = place.cache->Match(
          {match.chain, tokens_, rows}, match.form,
          [&](const Snapshot& snapshot) { return member.fits(snapshot, match.form); });
      if (match.hit.snapshot != nullptr) match.quality = match.hit.snapshot->quality;
    }
    longest = std::max(longest, match.hit.rows);
  }
  return longest;
}

uint64_t CommonPrefix::Find(uint64_t rows_max) {
  rows_ = members_.empty() ? 0 : rows_max;
  for (bool agreed = false; !agreed;) {
    agreed = true;
    for (Member& member : members_) {
      const uint64_t rows = Longest(member, rows_);
      agreed = agreed && rows == rows_;
      rows_ = rows;
    }
  }
  return rows_;
}

int CommonPrefix::RankOf(const Member& member, const PrefixMatchOf& match) {
  const int better_than_any = static_cast<int>(QualityClass::kFull) + 1;
  const int rank = match.form == member.form ? better_than_any : static_cast<int>(match.quality);
  return match.tier ? rank : rank + better_than_any;
}

std::vector<PrefixMatchOf> CommonPrefix::Matches() const {
  std::vector<PrefixMatchOf> matches;
  for (const Member& member : members_) {
    const PrefixMatchOf* best = nullptr;
    for (const Place& place : member.places) {
      if (place.match.hit.rows != rows_) continue;
      if (best == nullptr || RankOf(member, place.match) > RankOf(member, *best)) {
        best = &place.match;
      }
    }
    matches.push_back(*best);
  }
  return matches;
}

}  // namespace kvasir::core
