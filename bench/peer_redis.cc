// Redis on a Unix socket: by hiredis, its own client, and by one that receives values where they
// are wanted, which hiredis does not: it receives 16 KiB at a time and copies them twice.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "bench/kernel_data.h"
#include "bench/peer.h"
#include "bench/peer_text.h"
#include "bench/redis_server.h"

#include <fmt/format.h>
#include <hiredis/hiredis.h>

namespace kvasir::bench {
namespace {

std::string Command(const char* verb, const std::string& key) {
  return fmt::format("*2\r\n${}\r\n{}\r\n${}\r\n{}\r\n", std::string(verb).size(), verb, key.size(),
                     key);
}

absl::Status Expect(TextSocket& socket, const std::string& expected) {
  KVASIR_ASSIGN_OR_RETURN(const std::string_view line, socket.ReadLine());
  if (line == expected) return absl::OkStatus();
  return NotFound("Redis says something else: answer={} expected={}", line, expected);
}

constexpr TextProtocol kProtocol = {
    .get = [](const std::string& key) { return Command("GET", key); },
    .read_value_head = [](TextSocket& socket,
                          uint64_t bytes) { return Expect(socket, fmt::format("${}", bytes)); },
    .read_value_tail = [](TextSocket& socket) { return socket.ReadLineEnd(); },
    .set =
        [](const std::string& key, uint64_t bytes) {
          return fmt::format("*3\r\n$3\r\nSET\r\n${}\r\n{}\r\n${}\r\n", key.size(), key, bytes);
        },
    .read_stored = [](TextSocket& socket) { return Expect(socket, "+OK"); },
    .look = [](const std::string& key) { return Command("EXISTS", key); },
    .read_found = [](TextSocket& socket) { return Expect(socket, ":1"); },
};

struct FreeContext {
  void operator()(redisContext* context) const { ::redisFree(context); }
};
struct FreeReply {
  void operator()(redisReply* reply) const { ::freeReplyObject(reply); }
};
using Reply = std::unique_ptr<redisReply, FreeReply>;

// As many requests in flight, and the same values, as TextPeer. A value is read where hiredis has
// put it.
class HiredisPeer final : public Peer {
 public:
  static absl::StatusOr<std::unique_ptr<Peer>> Join(const std::string& path,
                                                    std::shared_ptr<RedisServer> server,
                                                    const PeerData& data) {
    std::unique_ptr<HiredisPeer> peer(new HiredisPeer);
    peer->path_ = path;
    peer->server_ = std::move(server);
    peer->data_ = data;
    peer->context_.reset(::redisConnectUnix(path.c_str()));
    if (peer->context_ != nullptr && peer->context_->err == 0) return peer;
    return Unavailable("hiredis does not connect: path={}", path);
  }
  absl::StatusOr<uint64_t> FetchPrefix() override { return Get(kBlocks, BlockKey); }
  absl::StatusOr<uint64_t> FetchLayer(uint64_t layer) override {
    return Get(kBlocks, [layer](uint64_t block) { return SliceKey(layer, block); });
  }
  absl::StatusOr<uint64_t> FetchSmall(uint64_t block) override {
    return Get(1, [block](uint64_t) { return SmallKey(block); });
  }
  absl::Status Look(uint64_t block) override {
    ::redisAppendCommand(context_.get(), "EXISTS %s", SmallKey(block).c_str());
    KVASIR_ASSIGN_OR_RETURN(const Reply reply, Next(REDIS_REPLY_INTEGER));
    return reply->integer == 1 ? absl::OkStatus() : NotFound("not in Redis: block={}", block);
  }
  absl::Status Store(bool) override {
    for (uint64_t i = 0; i < kBlocks + kValuesInFlight; ++i) {
      if (i < kBlocks) {
        ::redisAppendCommand(context_.get(), "SET %s %b", BlockKey(i).c_str(),
                             data_.prefix + i * kBlockBytes, size_t{kBlockBytes});
      }
      if (i < kValuesInFlight) continue;
      KVASIR_RETURN_IF_ERROR(Next(REDIS_REPLY_STATUS).status());
    }
    return absl::OkStatus();
  }
  std::string address() const override { return path_; }

 private:
  HiredisPeer() = default;
  absl::StatusOr<Reply> Next(int type) {
    void* reply = nullptr;
    if (::redisGetReply(context_.get(), &reply) != REDIS_OK) {
      return Unavailable("hiredis: {}", static_cast<const char*>(context_->errstr));
    }
    Reply owned(static_cast<redisReply*>(reply));
    if (owned->type != type) return NotFound("Redis answers another type: type={}", owned->type);
    return owned;
  }
  template <typename KeyOf>
  absl::StatusOr<uint64_t> Get(uint64_t count, const KeyOf& key) {
    uint64_t sum = 0;
    for (uint64_t asked = 0, i = 0; i < count; ++i) {
      for (; asked < std::min(count, i + kValuesInFlight); ++asked) {
        ::redisAppendCommand(context_.get(), "GET %s", key(asked).c_str());
      }
      KVASIR_ASSIGN_OR_RETURN(const Reply reply, Next(REDIS_REPLY_STRING));
      sum += ReadOnce(reinterpret_cast<const std::byte*>(reply->str), reply->len);
    }
    return sum;
  }

  std::string path_;
  std::shared_ptr<RedisServer> server_;
  std::unique_ptr<redisContext, FreeContext> context_;
  PeerData data_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Peer>> StartRedis(const PeerData& data) {
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<RedisServer> started, RedisServer::Start({}));
  const std::shared_ptr<RedisServer> server = std::move(started);
  KVASIR_RETURN_IF_ERROR(TextPeer::Fill(kProtocol, server->socket(), nullptr, data).status());
  return HiredisPeer::Join(server->socket(), server, data);
}

absl::StatusOr<std::unique_ptr<Peer>> JoinRedis(const std::string& address) {
  return HiredisPeer::Join(address, nullptr, {});
}

absl::StatusOr<std::unique_ptr<Peer>> JoinRedisInPlace(const std::string& address,
                                                       const PeerData& data) {
  return TextPeer::Join(kProtocol, address, data);
}

}  // namespace kvasir::bench
