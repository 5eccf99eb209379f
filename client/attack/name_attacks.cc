// What is another's, by its name: tokens, sequences, snapshots, leases, tenants.
#include <chrono>
#include <set>
#include <utility>

#include "base/error.h"
#include "client/attack/attacks.h"
#include "client/attack/by_hand.h"

#include <fmt/format.h>

namespace kvasir::attack {
namespace {

using Stub = v1::KvCache::Stub;

// Every kind of call by a token that is not its caller's.
void AttackToken(const std::string& whose, const std::string& token, const Target& target,
                 Attempts& attempts) {
  Calls calls(target.control_socket, token);
  const auto refused = [&](const char* verb, const grpc::Status& status) {
    attempts.AddStatus(fmt::format("{} by {}", verb, whose), ToStatus(status),
                       {absl::StatusCode::kUnauthenticated});
  };
  v1::RegisterModelRequest model;
  *model.mutable_spec() = GoodSpec(1);
  v1::RegisterModelResponse registered;
  refused("register a model", calls.Call(&Stub::RegisterModel, model, &registered));
  v1::SyncRequest sync;
  v1::SyncNeed* const need = sync.add_needs();
  need->set_sequence(target.sequence);
  need->set_uid(target.sequence_uid);
  v1::SyncResponse synced;
  refused("ask for rows", calls.Call(&Stub::Sync, sync, &synced));
  v1::SaveSequenceRequest save;
  save.set_sequence(target.sequence);
  save.set_uid(target.sequence_uid);
  v1::SaveSequenceResponse saved;
  refused("save a sequence", calls.Call(&Stub::SaveSequence, save, &saved));
  v1::CloseSequenceRequest close;
  close.set_sequence(target.sequence);
  close.set_uid(target.sequence_uid);
  v1::CloseSequenceResponse closed;
  refused("close a sequence", calls.Call(&Stub::CloseSequence, close, &closed));
  v1::DropSnapshotRequest drop;
  drop.set_snapshot_id(FromHex(target.snapshot).value_or(std::string(16, '\0')));
  v1::DropSnapshotResponse dropped;
  refused("drop a snapshot", calls.Call(&Stub::DropSnapshot, drop, &dropped));
}

void AttackSequences(const Target& target, Engine& engine, Attempts& attempts) {
  for (uint32_t slot = 0; slot < 3; ++slot) {
    for (uint32_t uid = 0; uid < 4; ++uid) {
      v1::CloseSequenceRequest close;
      close.set_sequence(slot);
      close.set_uid(uid);
      v1::CloseSequenceResponse closed;
      attempts.AddStatus("close a sequence by a made-up slot and uid",
                         ToStatus(engine.calls().Call(&Stub::CloseSequence, close, &closed)),
                         {absl::StatusCode::kNotFound});
    }
  }
  v1::TruncateRequest truncate;
  truncate.set_sequence(target.sequence);
  truncate.set_uid(target.sequence_uid);
  v1::TruncateResponse truncated;
  attempts.AddStatus("cut the other's sequence by its slot and uid",
                     ToStatus(engine.calls().Call(&Stub::Truncate, truncate, &truncated)),
                     {absl::StatusCode::kNotFound});
  v1::InspectSequenceRequest inspect;
  inspect.set_sequence_id(target.sequence_id);
  v1::InspectSequenceResponse inspected;
  std::set<std::string> messages;
  for (const uint32_t layer : {0U, 9999U}) {
    inspect.set_layer(layer);
    const grpc::Status status =
        engine.calls().CallAdmin(&v1::Admin::Stub::InspectSequence, inspect, &inspected);
    attempts.AddStatus("inspect the other's sequence", ToStatus(status),
                       {absl::StatusCode::kNotFound});
    messages.insert(status.error_message());
  }
  attempts.Add("learn by its errors whether the other's sequence is there",
               messages.size() == 1 ? Verdict::kRefused : Verdict::kSucceeded,
               fmt::format("daemon: {} different answers", messages.size()));
}

void AttackSaved(const Target& target, Engine& engine, Attempts& attempts) {
  const std::string snapshot = FromHex(target.snapshot).value_or("");
  const std::string forged(16, '\x5a');
  for (const auto& [whose, id] : {std::pair{"the other's", snapshot}, {"a made-up", forged}}) {
    if (id.empty()) continue;
    v1::OpenSequenceRequest open;
    open.set_model_id(engine.model_id());
    open.set_snapshot_id(id);
    v1::OpenSequenceResponse opened;
    attempts.AddStatus(fmt::format("go on from {} snapshot", whose),
                       ToStatus(engine.calls().Call(&Stub::OpenSequence, open, &opened)),
                       {absl::StatusCode::kNotFound});
    v1::DropSnapshotRequest drop;
    drop.set_snapshot_id(id);
    v1::DropSnapshotResponse dropped;
    attempts.AddStatus(fmt::format("drop {} snapshot", whose),
                       ToStatus(engine.calls().Call(&Stub::DropSnapshot, drop, &dropped)),
                       {absl::StatusCode::kNotFound});
  }
  const std::string lease = FromHex(target.lease).value_or("");
  for (const auto& [whose, id] : {std::pair{"the other's", lease}, {"a made-up", forged}}) {
    if (id.empty()) continue;
    v1::OpenSequenceRequest open;
    open.set_model_id(engine.model_id());
    open.set_lease_id(id);
    open.mutable_prefix()->mutable_tokens()->Resize(32, 7);
    v1::OpenSequenceResponse opened;
    attempts.AddStatus(fmt::format("open by {} lease", whose),
                       ToStatus(engine.calls().Call(&Stub::OpenSequence, open, &opened)),
                       {absl::StatusCode::kNotFound});
    v1::ReleaseLeaseRequest release;
    release.set_lease_id(id);
    v1::ReleaseLeaseResponse released;
    attempts.AddStatus(fmt::format("release {} lease", whose),
                       ToStatus(engine.calls().Call(&Stub::ReleaseLease, release, &released)),
                       {absl::StatusCode::kNotFound});
  }
}

}  // namespace

void AttackNames(const Target& target, Attempts& attempts) {
  AttackToken("the other's token", target.token, target, attempts);
  for (const std::string& token : {std::string(32, '0'), std::string(32, 'a'), std::string("zz"),
                                   std::string(32, 'g'), std::string(4000, 'a'), std::string()}) {
    AttackToken("a made-up token", token, target, attempts);
  }
  absl::StatusOr<Engine> engine = Engine::Start(target.control_socket, target.data_socket, 1);
  if (!engine.ok()) {
    return attempts.Add("names of sequences", Verdict::kNotTried, MessageOf(engine.status()));
  }
  AttackSequences(target, *engine, attempts);
  AttackSaved(target, *engine, attempts);
}

}  // namespace kvasir::attack
