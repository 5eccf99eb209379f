// Why the prompt of a sequence was there only so far: what the nearest cached prefix has another
// of.
//
// Not thread-safe. Cost: O(entries of the tenant x log(chunks)).
#ifndef KVASIR_DAEMON_CORE_PREFIX_EXPLANATION_H_
#define KVASIR_DAEMON_CORE_PREFIX_EXPLANATION_H_

#include <cstdint>
#include <string>

#include "base/clock.h"
#include "daemon/core/prefix_cache.h"

namespace kvasir::core {

enum class MissCause {
  kNone,       // all that was wanted is there
  kNotStored,  // nothing of it was ever published, or that is not remembered
  kToken,      // the nearest one has another token at `row`
  kExtra,      // the tokens are the same, what they stand for is not
  kSalt,       // the same tokens of the same model lie under another salt
  kModel,      // they lie there for another model, or for other digests, types or rope
  kForm,       // they lie there in another form
  kPrompt,     // in this form, for a prompt of another length, which the policy tells apart
  kBorder,     // the nearest one can be gone on from at other rows alone, or its rest differs
  kEvicted,    // the next chunk was there until `evicted_ago`
  kEngine,     // the nearest one needs what the engine cannot do, such as reading records
  kLease,      // it is there, but not for all of the request group
  kDegraded,   // it was there in this form and is in one that holds less: least_quality finds it
};

// Lower-case word of the cause, for people and JSON.
const char* NameOf(MissCause cause);

struct PrefixExplanation {
  MissCause cause = MissCause::kNone;
  uint64_t row = 0;           // the first one that is not there
  std::string nearest;        // form or model of the nearest one, where that differs
  uint64_t nearest_rows = 0;  // rows that the nearest one has
  Instant::duration evicted_ago{};
};

struct PrefixAsk {
  const PrefixQuery* query = nullptr;
  ChainKey form;
  const std::string* retention = nullptr;
  std::array<uint8_t, 16> model_fingerprint{};
  uint64_t rows_hit = 0;
  bool leased = false;  // they are those of a lease
};

PrefixExplanation Explain(const PrefixCache& cache, const PrefixAsk& ask, Instant now);

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_PREFIX_EXPLANATION_H_
