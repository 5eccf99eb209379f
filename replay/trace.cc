#include "replay/trace.h"

#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "eviction/eviction_policy.h"
#include "index/block_index.h"
#include "index/chain_hasher.h"

#include <nlohmann/json.hpp>

namespace kvasir::replay {
namespace {

using Json = nlohmann::json;

// What stands in a field, for a message. What has parts is not written out: that takes stack for
// each level, and a line may have millions of them.
std::string Shown(const Json& value) {
  return value.is_structured() ? value.type_name() : value.dump().substr(0, 40);
}

// A whole number of an object. nlohmann keeps numbers without sign or fraction as unsigned ones.
absl::StatusOr<uint64_t> Number(const Json& object, const char* field, uint64_t min, uint64_t max,
                                size_t line) {
  const auto found = object.find(field);
  if (found == object.end())
    return InvalidArgument("field is missing: line={} field={}", line, field);
  if (!found->is_number_unsigned() || found->get<uint64_t>() < min ||
      found->get<uint64_t>() > max) {
    return InvalidArgument("no whole number within bounds: line={} {}={} min={} max={}", line,
                           field, Shown(*found), min, max);
  }
  return found->get<uint64_t>();
}

// The array of ids, one for each block that `tokens` fill or begin.
absl::StatusOr<const Json*> HashIds(const Json& object, uint64_t tokens, uint32_t block_tokens,
                                    size_t line) {
  const auto found = object.find("hash_ids");
  if (found == object.end())
    return InvalidArgument("field is missing: line={} field=hash_ids", line);
  const uint64_t blocks = DivideUp(tokens, block_tokens);
  if (!found->is_array() || found->size() != blocks || blocks > eviction::kChainBlocksMax) {
    return InvalidArgument(
        "there is not one number for each block: line={} hash_ids={} expected={} max={} "
        "block_tokens={}",
        line, found->is_array() ? found->size() : 0, blocks, eviction::kChainBlocksMax,
        block_tokens);
  }
  for (const Json& id : *found) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > kHashIdMax) {
      return InvalidArgument("no whole number within bounds: line={} hash_ids={} min=0 max={}",
                             line, Shown(id), kHashIdMax);
    }
  }
  return &*found;
}

}  // namespace

absl::StatusOr<Trace> Trace::Read(std::istream& in, uint32_t block_tokens) {
  Trace trace;
  trace.block_tokens_ = block_tokens;
  ChainHasher hasher({'k', 'v', 'a', 's', 'i', 'r', '-', 'r', 'e', 'p', 'l', 'a', 'y'}, {});
  std::string text;
  uint64_t earliest = 0;
  for (size_t line = 1; std::getline(in, text); ++line) {
    if (text.size() > kLineBytesMax) {
      return InvalidArgument("line is too long: line={} bytes={} max={}", line, text.size(),
                             kLineBytesMax);
    }
    if (text.empty()) continue;
    const Json object = Json::parse(text, nullptr, false);
    if (!object.is_object()) return InvalidArgument("no JSON object: line={}", line);
    Line request;
    KVASIR_ASSIGN_OR_RETURN(request.timestamp,
                            Number(object, "timestamp", earliest, kTimestampMax, line));
    earliest = request.timestamp;
    KVASIR_ASSIGN_OR_RETURN(const uint64_t input,
                            Number(object, "input_length", 1, kTokensMax, line));
    KVASIR_ASSIGN_OR_RETURN(const uint64_t output,
                            Number(object, "output_length", 0, kTokensMax, line));
    KVASIR_ASSIGN_OR_RETURN(const Json* ids, HashIds(object, input, block_tokens, line));
    request.input_length = static_cast<uint32_t>(input);
    request.output_length = static_cast<uint32_t>(output);
    request.first = trace.keys_.size();
    request.count = ids->size();
    if (trace.requests_.size() >= kRequestsMax ||
        trace.keys_.size() + request.count > kAccessesMax) {
      return InvalidArgument("trace is too long: line={} requests_max={} blocks_max={}", line,
                             kRequestsMax, kAccessesMax);
    }
    ChainKey parent;
    for (const Json& id : *ids) {
      const auto number = id.get<uint64_t>();
      const uint32_t tokens[] = {static_cast<uint32_t>(number),
                                 static_cast<uint32_t>(number >> 32)};
      KVASIR_ASSIGN_OR_RETURN(parent, hasher.Hash(parent, tokens));
      trace.keys_.push_back(parent);
    }
    trace.requests_.push_back(request);
  }
  if (in.bad()) return Unavailable("the trace cannot be read: line={}", trace.requests_.size());
  if (trace.requests_.empty()) return InvalidArgument("the trace has no request: requests=0 min=1");
  BlockIndex seen(static_cast<uint32_t>(trace.keys_.size()));
  for (const ChainKey& key : trace.keys_) seen.Insert(key, kNoBlock);
  trace.unique_blocks_ = seen.size();
  return trace;
}

eviction::Request Trace::request(size_t i) const {
  const Line& line = requests_[i];
  return {std::span(keys_).subspan(line.first, line.count), line.input_length % block_tokens_ != 0,
          line.input_length, line.output_length, static_cast<int64_t>(line.timestamp * 1000)};
}

}  // namespace kvasir::replay
