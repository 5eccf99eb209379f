// TextPeer: a store behind a socket and a protocol of lines and payloads.
//
// The prefix lies there as 256 blocks of 2 MiB, what is read by layers a second time as parts of 64
// KiB: each fetch finds the values of the size that it wants. Eight requests are in flight. Values
// are received into touched memory, each is read right after.
#ifndef KVASIR_BENCH_PEER_TEXT_H_
#define KVASIR_BENCH_PEER_TEXT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/peer.h"
#include "bench/text_socket.h"

namespace kvasir::bench {

inline constexpr uint64_t kValuesInFlight = 8;

std::string BlockKey(uint64_t block);
std::string SliceKey(uint64_t layer, uint64_t block);
std::string SmallKey(uint64_t block);

// What is said and heard. Plain functions of one protocol.
struct TextProtocol {
  std::string (*get)(const std::string& key) = nullptr;
  absl::Status (*read_value_head)(TextSocket& socket, uint64_t bytes) = nullptr;
  absl::Status (*read_value_tail)(TextSocket& socket) = nullptr;
  std::string (*set)(const std::string& key, uint64_t bytes) = nullptr;  // up to the payload
  absl::Status (*read_stored)(TextSocket& socket) = nullptr;
  std::string (*look)(const std::string& key) = nullptr;
  absl::Status (*read_found)(TextSocket& socket) = nullptr;
};

class TextPeer final : public Peer {
 public:
  // `data`: for Store() alone. Errors: as ConnectUnix().
  static absl::StatusOr<std::unique_ptr<Peer>> Join(const TextProtocol& protocol,
                                                    const std::string& path,
                                                    const PeerData& data = {});
  // `server` is kept until the end; nothing: somebody else's. Errors: as ConnectUnix().
  static absl::StatusOr<std::unique_ptr<Peer>> Fill(const TextProtocol& protocol,
                                                    const std::string& path,
                                                    std::shared_ptr<void> server,
                                                    const PeerData& data);

  absl::StatusOr<uint64_t> FetchPrefix() override;
  absl::StatusOr<uint64_t> FetchLayer(uint64_t layer) override;
  absl::StatusOr<uint64_t> FetchSmall(uint64_t block) override;
  absl::Status Look(uint64_t block) override;
  absl::Status Store(bool rows_in_place) override;
  std::string address() const override { return path_; }

 private:
  using KeyOf = std::function<std::string(uint64_t)>;
  using FromOf = std::function<const std::byte*(uint64_t)>;
  TextPeer(const TextProtocol& protocol, std::string path, TextSocket socket)
      : protocol_(protocol), path_(std::move(path)), socket_(std::move(socket)) {}
  absl::StatusOr<uint64_t> Get(uint64_t count, uint64_t bytes, const KeyOf& key);
  absl::Status Set(uint64_t count, uint64_t bytes, const KeyOf& key, const FromOf& from);

  const TextProtocol protocol_;
  const std::string path_;
  std::shared_ptr<void> server_;
  TextSocket socket_;
  PeerData data_;
  PlainMemory into_ = MakePlainMemory(kPrefixBytes);
};

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_PEER_TEXT_H_
