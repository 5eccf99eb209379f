// RemoteTier::ForEach: which blocks of this layout a server has, by SCAN.
#include <array>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "allocator/tier/remote_tier.h"
#include "base/error.h"
#include "base/status_macros.h"

#include <hiredis/hiredis.h>

namespace kvasir {
namespace {

constexpr std::string_view kKeysAtOnce = "1000";
constexpr int64_t kValueBytesMax = int64_t{1} << 40;
// A thousand million keys: a server that never comes to its end is not followed for ever.
constexpr size_t kPagesMax = 1'000'000;

struct ScanPage {
  std::string cursor;
  std::vector<TierKey> keys;
};

std::string_view TextOf(const redisReply& reply) { return {reply.str, reply.len}; }

// An answer of SCAN: [cursor, [key, ...]]. Keys of another shape are not ours.
absl::StatusOr<ScanPage> ParsePage(const redisReply& reply, std::string_view prefix) {
  if (reply.type == REDIS_REPLY_ERROR) return RemoteErrorStatus(std::string(TextOf(reply)));
  if (reply.type != REDIS_REPLY_ARRAY || reply.elements != 2 ||
      reply.element[0]->type != REDIS_REPLY_STRING || reply.element[1]->type != REDIS_REPLY_ARRAY) {
    return DataLoss("server answers SCAN with something else");
  }
  ScanPage page;
  page.cursor = TextOf(*reply.element[0]);
  for (size_t i = 0; i < reply.element[1]->elements; ++i) {
    const redisReply& name = *reply.element[1]->element[i];
    if (name.type != REDIS_REPLY_STRING || name.len != prefix.size() + kTierKeyBytes ||
        !TextOf(name).starts_with(prefix)) {
      continue;
    }
    TierKey& key = page.keys.emplace_back();
    std::memcpy(key.bytes.data(), name.str + prefix.size(), kTierKeyBytes);
  }
  return page;
}

}  // namespace

absl::Status RemoteTier::ForEach(const std::function<void(const TierKey&, uint64_t)>& visit) {
  KVASIR_ASSIGN_OR_RETURN(Connection connection, TakeConnection());
  const std::string pattern = prefix_ + "*";
  std::string cursor = "0";
  size_t pages = 0;
  do {
    if (++pages > kPagesMax) return DataLoss("server's SCAN has no end: pages_max={}", kPagesMax);
    // Each page has the time of a batch: a server may have many keys of others.
    const Instant deadline = SystemClock().Now() + options_.batch_timeout;
    const std::array<std::string_view, 6> scan = {"SCAN",  cursor,  "MATCH",
                                                  pattern, "COUNT", kKeysAtOnce};
    KVASIR_RETURN_IF_ERROR(connection->SendCommand(scan, deadline));
    KVASIR_ASSIGN_OR_RETURN(const RemoteConnection::Tree tree, connection->ReadTree(deadline));
    KVASIR_ASSIGN_OR_RETURN(ScanPage page, ParsePage(*tree, prefix_));
    KVASIR_ASSIGN_OR_RETURN(const std::vector<int64_t> bytes,
                            Ask(*connection, "STRLEN", page.keys, kValueBytesMax, deadline));
    for (size_t i = 0; i < page.keys.size(); ++i) {
      // Gone meanwhile, or too short to be a block.
      if (bytes[i] <= static_cast<int64_t>(kBlockHeaderBytes)) continue;
      visit(page.keys[i], static_cast<uint64_t>(bytes[i]) - kBlockHeaderBytes);
    }
    cursor = std::move(page.cursor);
  } while (cursor != "0");
  ReturnConnection(std::move(connection), absl::OkStatus());
  return absl::OkStatus();
}

}  // namespace kvasir
