#include "bench/peer_text.h"

#include <algorithm>

#include "base/status_macros.h"
#include "bench/kernel_data.h"

#include <fmt/format.h>

namespace kvasir::bench {

std::string BlockKey(uint64_t block) { return fmt::format("block:{}", block); }
std::string SliceKey(uint64_t layer, uint64_t block) {
  return fmt::format("slice:{}:{}", layer, block);
}
std::string SmallKey(uint64_t block) { return fmt::format("small:{}", block); }

absl::StatusOr<std::unique_ptr<Peer>> TextPeer::Join(const TextProtocol& protocol,
                                                     const std::string& path,
                                                     const PeerData& data) {
  KVASIR_ASSIGN_OR_RETURN(TextSocket socket, TextSocket::Connect(path));
  std::unique_ptr<TextPeer> peer(new TextPeer(protocol, path, std::move(socket)));
  peer->data_ = data;
  return std::unique_ptr<Peer>(std::move(peer));
}

absl::StatusOr<std::unique_ptr<Peer>> TextPeer::Fill(const TextProtocol& protocol,
                                                     const std::string& path,
                                                     std::shared_ptr<void> server,
                                                     const PeerData& data) {
  KVASIR_ASSIGN_OR_RETURN(TextSocket socket, TextSocket::Connect(path));
  std::unique_ptr<TextPeer> peer(new TextPeer(protocol, path, std::move(socket)));
  peer->server_ = std::move(server);
  peer->data_ = data;
  KVASIR_RETURN_IF_ERROR(peer->Store(false));
  for (uint64_t layer = 0; layer < kLayers; ++layer) {
    KVASIR_RETURN_IF_ERROR(peer->Set(
        kBlocks, kSliceBytes, [&](uint64_t block) { return SliceKey(layer, block); },
        [&](uint64_t block) { return data.prefix + block * kBlockBytes + layer * kSliceBytes; }));
  }
  KVASIR_RETURN_IF_ERROR(peer->Set(kSmallBlocks, kSmallBytes, SmallKey, [&](uint64_t block) {
    return data.small + block * kSmallBytes;
  }));
  return std::unique_ptr<Peer>(std::move(peer));
}

absl::StatusOr<uint64_t> TextPeer::Get(uint64_t count, uint64_t bytes, const KeyOf& key) {
  uint64_t sum = 0;
  for (uint64_t asked = 0, i = 0; i < count; ++i) {
    for (; asked < std::min(count, i + kValuesInFlight); ++asked) {
      KVASIR_RETURN_IF_ERROR(socket_.Send(protocol_.get(key(asked))));
    }
    std::byte* const into = into_.get() + i * bytes;
    KVASIR_RETURN_IF_ERROR(protocol_.read_value_head(socket_, bytes));
    KVASIR_RETURN_IF_ERROR(socket_.ReadInto({into, bytes}));
    KVASIR_RETURN_IF_ERROR(protocol_.read_value_tail(socket_));
    sum += ReadOnce(into, bytes);
  }
  return sum;
}

absl::Status TextPeer::Set(uint64_t count, uint64_t bytes, const KeyOf& key, const FromOf& from) {
  for (uint64_t i = 0; i < count + kValuesInFlight; ++i) {
    if (i < count) {
      KVASIR_RETURN_IF_ERROR(socket_.Send(protocol_.set(key(i), bytes), {from(i), bytes}, "\r\n"));
    }
    if (i >= kValuesInFlight && i - kValuesInFlight < count) {
      KVASIR_RETURN_IF_ERROR(protocol_.read_stored(socket_));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> TextPeer::FetchPrefix() { return Get(kBlocks, kBlockBytes, BlockKey); }

absl::StatusOr<uint64_t> TextPeer::FetchLayer(uint64_t layer) {
  return Get(kBlocks, kSliceBytes, [layer](uint64_t block) { return SliceKey(layer, block); });
}

absl::StatusOr<uint64_t> TextPeer::FetchSmall(uint64_t block) {
  return Get(1, kSmallBytes, [block](uint64_t) { return SmallKey(block); });
}

absl::Status TextPeer::Look(uint64_t block) {
  KVASIR_RETURN_IF_ERROR(socket_.Send(protocol_.look(SmallKey(block))));
  return protocol_.read_found(socket_);
}

absl::Status TextPeer::Store(bool) {
  return Set(kBlocks, kBlockBytes, BlockKey,
             [&](uint64_t block) { return data_.prefix + block * kBlockBytes; });
}

}  // namespace kvasir::bench
