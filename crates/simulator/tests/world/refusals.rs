//! A kernel that refuses.

use epochgate_controller::event::EventKind;
use epochgate_controller::io::{Command, PolicyAction, PolicyDirection, XfrmError};
use epochgate_controller::status::GateStatus;
use epochgate_simulator::kernel::{Failure, OpKind};
use epochgate_simulator::pair::Pair;

use crate::{MILLISECOND, Outcome, SECOND, established, started};

fn exists() -> XfrmError {
    XfrmError::Exists("File exists".into())
}

fn recovers(mut pair: Pair) -> Outcome {
    let flow = pair.upward(100 * MILLISECOND);
    pair.await_open(10 * SECOND)?;
    pair.world.stop_flow(flow);
    pair.drain()?;
    assert!(pair.is_open());
    assert_eq!(pair.world.account(flow).lost(), 0);
    assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    Ok(())
}

#[test]
fn a_refused_sa_at_the_start_is_negotiated_again() -> Outcome {
    for (seed, kind) in (61..).zip([OpKind::AddInbound, OpKind::AddOutbound]) {
        let mut pair = started(seed)?;
        pair.world.fail_next(pair.client, kind, exists());
        recovers(pair)?;
        let mut pair = started(seed)?;
        pair.world.fail_next(pair.server, kind, exists());
        recovers(pair)?;
    }
    Ok(())
}

#[test]
fn a_refused_sa_of_a_rekey_leaves_traffic_on_the_old_epoch_until_the_next_attempt() -> Outcome {
    for (seed, kind) in (65..).zip([OpKind::AddInbound, OpKind::AddOutbound]) {
        for at_client in [true, false] {
            for by_client in [true, false] {
                let mut pair = established(seed)?;
                let up = pair.upward(MILLISECOND);
                let down = pair.downward(MILLISECOND);
                let open = pair.open_epoch(pair.client).unwrap();
                let ends = [pair.server, pair.client];
                let refusing = ends[usize::from(at_client)];
                let starter = ends[usize::from(by_client)];
                pair.world.fail_next(refusing, kind, exists());
                pair.rekey(starter);
                pair.world.run_for(5 * SECOND)?;
                pair.rekey(starter);
                pair.await_newer(open, 10 * SECOND)?;
                pair.world.stop_flow(up);
                pair.world.stop_flow(down);
                pair.drain()?;
                for flow in [up, down] {
                    assert_eq!(pair.world.account(flow).lost(), 0);
                }
                let case = (seed, at_client, by_client);
                let sas = (pair.sas(pair.client), pair.sas(pair.server));
                assert_eq!(sas, (2, 2), "{case:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_refused_move_of_the_gate_is_tried_again() -> Outcome {
    for at_client in [true, false] {
        let mut pair = established(70)?;
        let up = pair.upward(MILLISECOND);
        let down = pair.downward(MILLISECOND);
        let open = pair.open_epoch(pair.client).unwrap();
        let ends = [pair.server, pair.client];
        let refusing = ends[usize::from(at_client)];
        pair.world.fail_next(
            refusing,
            OpKind::UpdatePolicies,
            XfrmError::Other("ENOMEM".into()),
        );
        pair.rekey(pair.client);
        pair.await_newer(open, 10 * SECOND)?;
        pair.world.stop_flow(up);
        pair.world.stop_flow(down);
        pair.drain()?;
        for flow in [up, down] {
            assert_eq!(pair.world.account(flow).lost(), 0);
        }
        assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    }
    Ok(())
}

#[test]
fn a_gate_that_cannot_leave_a_deleted_epoch_waits_for_the_next_attempt() -> Outcome {
    let mut pair = established(74)?;
    for _ in 0..8 {
        pair.world.fail_next(
            pair.client,
            OpKind::UpdatePolicies,
            XfrmError::Other("ENOMEM".into()),
        );
    }
    let down = Command::Down(pair.name.clone());
    pair.world.command(pair.server, down);
    pair.world.run_for(12 * SECOND)?;
    assert_eq!(pair.gate(pair.client), Some(GateStatus::Held));
    assert_eq!(pair.sas(pair.client), 0);
    Ok(())
}

#[test]
fn an_sa_whose_removal_the_kernel_refuses_is_removed_in_the_end() -> Outcome {
    let mut pair = established(75)?;
    for _ in 0..3 {
        pair.world.fail_next(
            pair.client,
            OpKind::RemoveSa,
            XfrmError::Other("ENOBUFS".into()),
        );
    }
    let open = pair.open_epoch(pair.client).unwrap();
    pair.rekey(pair.client);
    pair.await_newer(open, SECOND)?;
    pair.drain()?;
    assert_eq!(pair.sas(pair.client), 2);
    pair.world.crash(pair.client);
    let refusal = XfrmError::Other("ENOBUFS".into());
    pair.world.fail_next(pair.client, OpKind::RemoveSa, refusal);
    pair.start_client();
    pair.world.run_for(10 * MILLISECOND)?;
    assert_eq!(pair.sas(pair.client), 0);
    Ok(())
}

#[test]
fn an_sa_that_the_kernel_keeps_for_long_is_removed_once_it_lets_go() -> Outcome {
    let mut pair = established(76)?;
    for _ in 0..20 {
        let refusal = XfrmError::Other("EBUSY".into());
        pair.world.fail_next(pair.client, OpKind::RemoveSa, refusal);
    }
    let open = pair.open_epoch(pair.client).unwrap();
    pair.rekey(pair.client);
    pair.await_newer(open, SECOND)?;
    pair.drain()?;
    pair.world.run_for(10 * SECOND)?;
    assert_eq!(pair.sas(pair.client), 2);
    Ok(())
}

#[test]
fn an_unreadable_counter_proves_nothing_and_the_next_ping_does() -> Outcome {
    let mut pair = established(71)?;
    let open = pair.open_epoch(pair.client).unwrap();
    let unreadable = XfrmError::Other("ENOBUFS".into());
    pair.world
        .fail_next(pair.client, OpKind::ReadPackets, unreadable);
    pair.rekey(pair.client);
    pair.await_newer(open, 3 * SECOND)
}

#[test]
fn policies_that_cannot_be_created_are_reported_and_tried_again() -> Outcome {
    let mut pair = started(72)?;
    pair.world.crash(pair.client);
    let ours: Vec<_> = pair
        .world
        .node(pair.client)
        .kernel
        .our_policies()
        .map(|policy| policy.key)
        .collect();
    for key in ours {
        pair.world.steal_policy(pair.client, key);
    }
    pair.world
        .fail_next(pair.client, OpKind::CreatePolicies, exists());
    pair.start_client();
    pair.world.run_for(SECOND)?;
    let status = pair.status(pair.client).unwrap();
    assert_eq!(status.gate, GateStatus::Down);
    assert!(status.reason.contains("is not ours"), "{}", status.reason);
    pair.world.run_for(60 * SECOND)?;
    assert_eq!(pair.gate(pair.client), Some(GateStatus::Held));
    Ok(())
}

#[test]
fn policies_that_were_created_without_an_answer_are_known_as_ours() -> Outcome {
    let mut pair = established(77)?;
    pair.world.crash(pair.client);
    pair.world.flush_policies(pair.client);
    let lost = Failure::Unanswered(XfrmError::Other("ENOBUFS".into()));
    pair.world
        .fail_next_by(pair.client, OpKind::CreatePolicies, lost);
    pair.start_client();
    pair.world.run_for(3 * SECOND)?;
    assert_eq!(pair.gate(pair.client), Some(GateStatus::Held));
    recovers(pair)
}

#[test]
fn what_an_earlier_run_left_is_read_until_it_can_be() -> Outcome {
    let mut pair = established(80)?;
    pair.world.crash(pair.client);
    for _ in 0..3 {
        let refusal = XfrmError::Other("EINTR".into());
        pair.world.fail_next(pair.client, OpKind::ReadOurs, refusal);
    }
    pair.start_client();
    recovers(pair)
}

#[test]
fn an_sa_that_was_added_without_an_answer_goes_with_its_epoch() -> Outcome {
    for (seed, kind) in (81..).zip([OpKind::AddInbound, OpKind::AddOutbound]) {
        let mut pair = started(seed)?;
        for node in [pair.client, pair.server] {
            let lost = Failure::Unanswered(XfrmError::Other("ENOBUFS".into()));
            pair.world.fail_next_by(node, kind, lost);
        }
        recovers(pair)?;
    }
    Ok(())
}

#[test]
fn a_removed_policy_that_the_kernel_will_not_take_back_is_written_until_it_does() -> Outcome {
    let mut pair = established(78)?;
    for _ in 0..3 {
        let refusal = XfrmError::Other("ENOMEM".into());
        pair.world
            .fail_next(pair.client, OpKind::UpdatePolicies, refusal);
    }
    pair.world.flush_policies(pair.client);
    pair.world.run_for(5 * SECOND)?;
    let kernel = &pair.world.node(pair.client).kernel;
    let out = kernel
        .our_policies()
        .find(|policy| policy.key.direction == PolicyDirection::Out);
    assert!(out.is_some());
    recovers(pair)
}

#[test]
fn a_hold_that_cannot_be_written_at_the_start_is_written_soon() -> Outcome {
    let mut pair = established(79)?;
    pair.world.crash(pair.client);
    for _ in 0..3 {
        let refusal = XfrmError::Other("ENOMEM".into());
        pair.world
            .fail_next(pair.client, OpKind::UpdatePolicies, refusal);
    }
    pair.start_client();
    recovers(pair)
}

#[test]
fn a_policy_that_somebody_else_removed_is_written_again() -> Outcome {
    let mut pair = established(73)?;
    let key = pair
        .world
        .node(pair.client)
        .kernel
        .our_policies()
        .find(|policy| policy.key.direction == PolicyDirection::Out)
        .map(|policy| policy.key)
        .unwrap();
    pair.world.steal_policy(pair.client, key);
    pair.world.run_for(10 * MILLISECOND)?;
    let kernel = &pair.world.node(pair.client).kernel;
    let restored = kernel.policies().find(|policy| policy.key == key).unwrap();
    assert!(matches!(restored.action, PolicyAction::Pin { .. }));
    let flow = pair.upward(10 * MILLISECOND);
    pair.world.run_for(SECOND)?;
    pair.world.stop_flow(flow);
    pair.world.run_for(SECOND)?;
    let account = pair.world.account(flow);
    assert_eq!((account.lost(), account.clear), (0, 0));
    assert!(pair.world.told(pair.client, |kind| matches!(
        kind,
        EventKind::Attention { .. }
    )));
    Ok(())
}
