//! Whole plans: what `plan_fleet` decides from a snapshot (tables and goldens), and what comes of it when plans are carried
//! out in a small world with virtual time.

#[cfg(test)]
mod plan {
    mod accept;
    mod account;
    mod aws;
    mod capacity;
    mod chaos;
    mod deletion;
    mod dice;
    mod drive;
    mod executor;
    mod fixture;
    mod grow;
    mod judge;
    mod kube;
    mod render;
    mod retract;
    mod roll;
    mod scaling;
    mod settled;
    mod shrink;
    mod simulation;
    mod speed;
    mod status;
    mod world;
}
