// Meddler: stands between a client and a daemon of the same process and changes what the daemon
// says: its answer to OpenSequence, and the D segment before that answer arrives.
#ifndef KVASIR_TESTS_CLIENT_MEDDLER_H_
#define KVASIR_TESTS_CLIENT_MEDDLER_H_

#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <utility>

#include <grpcpp/grpcpp.h>

#include "kvasir/v1/kv_cache.grpc.pb.h"
#include "proto/shm/layout.h"

namespace kvasir::testing {

// The first D segment of a daemon of this process, as the daemon has it: writable. Null: there is
// none.
inline std::byte* FindDaemonSegment() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find(" rw-s ") == std::string::npos) continue;
    if (line.find("/memfd:kvasir-session-d") == std::string::npos) continue;
    return reinterpret_cast<std::byte*>(std::strtoull(line.c_str(), nullptr, 16));
  }
  return nullptr;
}

// A table of a sequence in that segment: what a hostile daemon would have written there.
struct DaemonTable {
  shm::SeqBoard& board;
  shm::VersionDesc& desc;  // of the published version
  shm::LaneSpan* spans;
  shm::RunEntry* runs;  // of the first lane

  static DaemonTable Of(uint32_t slot) {
    std::byte* const d = FindDaemonSegment();
    const auto& header = *reinterpret_cast<const shm::DaemonHeader*>(d);
    auto& board = reinterpret_cast<shm::SeqBoard*>(d + header.seq_off)[slot];
    shm::VersionDesc& desc = board.v[board.published.load() & 1];
    auto* spans = reinterpret_cast<shm::LaneSpan*>(d + desc.lanes_off);
    return {board, desc, spans, reinterpret_cast<shm::RunEntry*>(d + spans->runs_off)};
  }
};

class Meddler final : public v1::KvCache::Service {
 public:
  Meddler(const std::string& socket, const std::string& daemon_socket)
      : daemon_(v1::KvCache::NewStub(
            grpc::CreateChannel("unix:" + daemon_socket, grpc::InsecureChannelCredentials()))) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }

  // Of answers that are OK; empty: they pass as they are. Set them only between calls.
  std::function<void(v1::OpenSequenceResponse& answer)> meddle;
  std::function<void()> after_sync;

  grpc::Status RegisterModel(grpc::ServerContext* context, const v1::RegisterModelRequest* request,
                             v1::RegisterModelResponse* answer) override {
    return Pass(&v1::KvCache::Stub::RegisterModel, *context, *request, answer);
  }
  grpc::Status ProbeLayout(grpc::ServerContext* context, const v1::ProbeLayoutRequest* request,
                           v1::ProbeLayoutResponse* answer) override {
    return Pass(&v1::KvCache::Stub::ProbeLayout, *context, *request, answer);
  }
  grpc::Status OpenSequence(grpc::ServerContext* context, const v1::OpenSequenceRequest* request,
                            v1::OpenSequenceResponse* answer) override {
    grpc::Status status = Pass(&v1::KvCache::Stub::OpenSequence, *context, *request, answer);
    if (status.ok() && meddle) meddle(*answer);
    return status;
  }
  grpc::Status Sync(grpc::ServerContext* context, const v1::SyncRequest* request,
                    v1::SyncResponse* answer) override {
    grpc::Status status = Pass(&v1::KvCache::Stub::Sync, *context, *request, answer);
    if (status.ok() && after_sync) after_sync();
    return status;
  }
  grpc::Status SaveSequence(grpc::ServerContext* context, const v1::SaveSequenceRequest* request,
                            v1::SaveSequenceResponse* answer) override {
    return Pass(&v1::KvCache::Stub::SaveSequence, *context, *request, answer);
  }
  grpc::Status DropSnapshot(grpc::ServerContext* context, const v1::DropSnapshotRequest* request,
                            v1::DropSnapshotResponse* answer) override {
    return Pass(&v1::KvCache::Stub::DropSnapshot, *context, *request, answer);
  }
  grpc::Status CloseSequence(grpc::ServerContext* context, const v1::CloseSequenceRequest* request,
                             v1::CloseSequenceResponse* answer) override {
    return Pass(&v1::KvCache::Stub::CloseSequence, *context, *request, answer);
  }

 private:
  // The daemon knows a caller by its token and its process, which is this one.
  template <typename Method, typename Request, typename Response>
  grpc::Status Pass(Method method, const grpc::ServerContext& from, const Request& request,
                    Response* answer) {
    grpc::ClientContext context;
    for (const auto& [key, value] : from.client_metadata()) {
      if (key == "kvasir-session-token") {
        context.AddMetadata("kvasir-session-token", {value.data(), value.size()});
      }
    }
    return ((*daemon_).*method)(&context, request, answer);
  }

  const std::unique_ptr<v1::KvCache::Stub> daemon_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_CLIENT_MEDDLER_H_
