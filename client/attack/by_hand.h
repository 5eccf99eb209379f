// What a client is without libkvasir, to break its rules: bare messages on the data socket and bare
// calls on the control socket.
#ifndef KVASIR_CLIENT_ATTACK_BY_HAND_H_
#define KVASIR_CLIENT_ATTACK_BY_HAND_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/statusor.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include "base/mapped_region.h"
#include "base/unix_socket.h"
#include "kvasir/v1/admin.grpc.pb.h"
#include "kvasir/v1/kv_cache.grpc.pb.h"
#include "proto/shm/group_geometry.h"
#include "proto/shm/layout.h"

namespace kvasir::attack {

shm::Hello GoodHello();

// A connection on the data socket. Not thread-safe.
class DataSocket {
 public:
  // Errors: connect's.
  static absl::StatusOr<DataSocket> Connect(const std::string& path);

  // One message. Errors: send's.
  absl::Status Send(const void* bytes, uint64_t count);
  // The next message, waiting at most ten seconds; bytes == 0: hung up.
  absl::StatusOr<ReceivedMessage> Receive(void* buffer, uint64_t bytes);
  // Says hello and maps the segments. Errors: the refusal's code and text.
  absl::Status Greet(const shm::Hello& hello);
  // True when the daemon hangs up before ten seconds are over; skips extent notices.
  bool IsHungUp();

  const std::string& token() const { return token_; }  // hex
  const shm::DaemonHeader& header() const {
    return *reinterpret_cast<const shm::DaemonHeader*>(d_.data());
  }
  const shm::SeqBoard& board(uint32_t slot) const {
    return reinterpret_cast<const shm::SeqBoard*>(d_.data() + header().seq_off)[slot];
  }
  shm::SeqDesk& desk(uint32_t slot) const {
    return reinterpret_cast<shm::SeqDesk*>(e_.data() + header().e_desk_off)[slot];
  }
  const UniqueFd& d_fd() const { return fds_[0]; }
  const UniqueFd& doorbell() const { return fds_[2]; }
  const MappedRegion& d() const { return d_; }
  const MappedRegion& e() const { return e_; }
  // The next extent notice, with its descriptor.
  struct SentExtent {
    shm::ExtentNotice notice{};
    UniqueFd fd;
  };
  absl::StatusOr<SentExtent> ReceiveExtent();

  DataSocket() = default;  // connected to nothing

 private:
  UniqueFd socket_;
  std::vector<UniqueFd> fds_;
  MappedRegion d_, e_;
  std::string token_;
};

// Calls with any token on a connection of their own. Thread-safe.
class Calls {
 public:
  Calls(const std::string& control_socket, std::string token_hex);

  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (v1::KvCache::Stub::*method)(grpc::ClientContext*, const Request&,
                                                              Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    Prepare(context);
    return ((*kv_cache_).*method)(&context, request, response);
  }
  template <typename Request, typename Response>
  grpc::Status CallAdmin(grpc::Status (v1::Admin::Stub::*method)(grpc::ClientContext*,
                                                                 const Request&, Response*),
                         const Request& request, Response* response) {
    grpc::ClientContext context;
    Prepare(context);
    return ((*admin_).*method)(&context, request, response);
  }
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

 private:
  void Prepare(grpc::ClientContext& context) const;

  const std::string token_hex_;
  const std::shared_ptr<grpc::Channel> channel_;  // gRPC's stubs share it
  const std::unique_ptr<v1::KvCache::Stub> kv_cache_;
  const std::unique_ptr<v1::Admin::Stub> admin_;
};

// An engine by hand: one session, one model, whatever its user puts into the desk. Not thread-safe.
class Engine {
 public:
  // Says hello, registers GoodSpec() of `layers` layers, passes the probe. Errors: the daemon's.
  static absl::StatusOr<Engine> Start(const std::string& control_socket,
                                      const std::string& data_socket, uint32_t layers);

  // Opens a sequence; its slot and uid are in the response. Errors: the daemon's.
  absl::StatusOr<v1::OpenSequenceResponse> Open(const std::string& retention);
  void SetDesk(const v1::OpenSequenceResponse& sequence, uint64_t rows, uint64_t adopted);
  // Writes the id of a row into its trailer; false: it lies in an extent beyond the first.
  bool WriteToken(const v1::OpenSequenceResponse& sequence, uint64_t row, uint32_t id);
  // One need. Returns the result's code and message, or the call's.
  absl::Status Sync(const v1::OpenSequenceResponse& sequence, uint64_t granted_rows,
                    std::optional<uint64_t> table_row = std::nullopt);

  DataSocket& data() { return data_; }
  Calls& calls() { return *calls_; }
  uint32_t model_id() const { return model_id_; }
  // The first extent, of recent rows.
  const UniqueFd& extent_fd() const { return extent_fd_; }
  const MappedRegion& extent() const { return extent_; }

 private:
  Engine() = default;

  DataSocket data_;
  std::unique_ptr<Calls> calls_;
  uint32_t model_id_ = 0;
  UniqueFd extent_fd_;
  MappedRegion extent_;
  shm::GroupGeometry geometry_;
};

// A spec that the daemon takes: `layers` layers of 2 kv heads x 16 elements in f16, vocabulary
// 1000.
v1::ModelSpec GoodSpec(int layers);

// What a call answered, as a status of ours.
absl::Status ToStatus(const grpc::Status& status);

}  // namespace kvasir::attack

#endif  // KVASIR_CLIENT_ATTACK_BY_HAND_H_
